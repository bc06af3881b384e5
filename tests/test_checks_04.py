"""The checks of lesson 04 accept right answers and name what is wrong with others."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from blip3o_mini import dit
from blip3o_mini.checks import nb04_dit as check
from blip3o_mini.config import preset

EXERCISES = {
    e.name: e for e in (check.sinusoids, check.angles, check.two_attentions, check.feed_forward, check.sandwich)
}  # fmt: skip


# Right answers written in another way than the check's own.


def sinusoids_by_numbers(timestep):
    speeds = [10_000 ** (-i / 128) for i in range(128)]
    return torch.tensor(
        [[f(float(t) * s) for f in (math.cos, math.sin) for s in speeds] for t in timestep], dtype=torch.float64
    )


def angles_by_loops(rows, columns, head_width):
    made = []
    for row in range(rows):
        for column in range(columns):
            cell = []
            for i in range(head_width // 4):
                speed = 10_000 ** (-4 * i / head_width)
                cell += [row * speed, column * speed]
            made.append(cell)
    return torch.tensor(made, dtype=torch.float64)


def attended_by_einsum(own, told, rotary, gate):
    def turn(x):
        real, imaginary = x[..., ::2], x[..., 1::2]
        c, s = rotary.real[:, None], rotary.imag[:, None]
        return torch.stack([real * c - imaginary * s, real * s + imaginary * c], -1).flatten(-2)

    def look(q, k, v):
        q = q.unflatten(2, (k.shape[2], -1))  # heads that share a key head stand together
        weights = (torch.einsum("bqgnd,bkgd->bgnqk", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        return torch.einsum("bgnqk,bkgd->bqgnd", weights, v).flatten(2, 3)

    heard = look(turn(told[0]), told[1], told[2]) * torch.tanh(gate)[None, None, :, None]
    return (look(turn(own[0]), turn(own[1]), own[2]) + heard).flatten(2)


def fed_by_layers(x, w1, w2, w3):
    layer = dit.FeedForward(w1.shape[1], w1.shape[0]).double()
    layer.load_state_dict({"linear_1.weight": w1, "linear_2.weight": w2, "linear_3.weight": w3})
    return layer(x)


def sandwiched_by_modules(h, branch, before, after, scale, gate):
    norms = [dit.RmsNorm(h.shape[-1]).double() for _ in range(2)]
    for norm, weight in zip(norms, (before, after)):
        norm.weight.data.copy_(weight)
    said = norms[1](branch(norms[0](h) * (1 + scale.unsqueeze(1))))
    return torch.addcmul(h, gate.tanh().unsqueeze(1), said)


OTHER = [("sinusoids", sinusoids_by_numbers), ("angles", angles_by_loops), ("two_attentions", attended_by_einsum),
         ("feed_forward", fed_by_layers), ("sandwich", sandwiched_by_modules)]  # fmt: skip


@pytest.mark.parametrize("name, learner", OTHER, ids=[name for name, _ in OTHER])
def test_other_right_answers_pass(name, learner, capsys):
    assert EXERCISES[name](learner) is True, capsys.readouterr().out


# Wrong answers as a student would write them, each with what the report must name.


def code(timestep, order="cs", top=128):
    speeds = 10_000 ** (-torch.arange(128) / top)
    made = {"c": torch.cos(timestep[:, None] * speeds), "s": torch.sin(timestep[:, None] * speeds)}
    return torch.cat([made[k] for k in order], 1)


def board(rows, columns, head_width, order="rc", is_split=False):
    half = head_width // 4
    speeds = 10_000.0 ** -(torch.arange(half).double() / half)
    places = {"r": torch.arange(rows * columns) // columns, "c": torch.arange(rows * columns) % columns}
    first, second = (places[k][:, None] * speeds for k in order)
    return torch.cat([first, second], 1) if is_split else torch.stack([first, second], 2).reshape(len(first), -1)


def counted(rows, columns, head_width):
    half = head_width // 2
    return torch.outer(torch.arange(rows * columns).double(), 10_000.0 ** -(torch.arange(half).double() / half))


def looked(own, told, rotary, gate, is_key_turned=False, is_query_turned=True, share=torch.tanh, is_plain=True):
    def look(q, k, v):
        group = q.shape[2] // k.shape[2]
        k, v = (x.repeat_interleave(group, 2) if is_plain else x.repeat(1, 1, group, 1) for x in (k, v))
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    q, k, v = told
    q = dit.rotate(q, rotary) if is_query_turned else q
    k = dit.rotate(k, rotary) if is_key_turned else k
    seen = look(dit.rotate(own[0], rotary), dit.rotate(own[1], rotary), own[2])
    return (seen + share(gate).view(1, 1, -1, 1) * look(q, k, v)).flatten(2)


def rms(x, weight):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def layered(x, weight):
    return F.layer_norm(x, weight.shape, weight, eps=1e-5)


PLANTED = [
    ("sinusoids", lambda t: code(t, "sc"), "sines come first"),
    ("sinusoids", lambda t: code(t, top=127), "by 127"),
    ("sinusoids", lambda t: code(t / 1000), "went back to sigma"),
    ("angles", lambda *case: board(*case, order="cr"), "changed places"),
    ("angles", lambda *case: board(*case, is_split=True), "all row pairs come first"),
    ("angles", counted, "in one line"),
    ("two_attentions", lambda *case: looked(*case, is_key_turned=True), "keys were turned, too"),
    ("two_attentions", lambda *case: looked(*case, is_query_turned=False), "were not turned"),
    ("two_attentions", lambda *case: looked(*case, share=lambda g: g), "lacks its tanh"),
    ("two_attentions", lambda *case: looked(*case, is_plain=False), "wrong way round"),
    ("feed_forward", lambda x, w1, w2, w3: ((x @ w1.T) * F.silu(x @ w3.T)) @ w2.T, "changed places"),
    ("feed_forward", lambda x, w1, w2, w3: F.silu(x @ w1.T * (x @ w3.T)) @ w2.T, "on the product"),
    ("feed_forward", lambda x, w1, w2, w3: ((x @ w1.T).sigmoid() * (x @ w3.T)) @ w2.T, "a sigmoid"),
    ("sandwich", lambda h, f, a, b, s, g: h + g[:, None].tanh() * rms(f(rms(h, a) * s[:, None]), b), "1 + scale"),
    ("sandwich", lambda h, f, a, b, s, g: h + g[:, None].tanh() * f(rms(h, a) * (1 + s[:, None])), "one on top"),
    ("sandwich", lambda h, f, a, b, s, g: h + g[:, None] * rms(f(rms(h, a) * (1 + s[:, None])), b), "lacks its tanh"),
    ("sandwich", lambda h, f, a, b, s, g: h + g[:, None].tanh() * layered(f(layered(h, a) * (1 + s[:, None])), b),
     "take the mean away"),
]  # fmt: skip


@pytest.mark.parametrize("name, learner, named", PLANTED, ids=[f"{name}: {named}" for name, _, named in PLANTED])
def test_planted_mistakes_are_named(name, learner, named, capsys):
    assert EXERCISES[name](learner) is False
    report = capsys.readouterr().out
    assert report.startswith("✘") and named in report


@pytest.mark.parametrize("heads", [4, 2])
def test_the_checks_agree_with_the_network(heads):
    """A block put together from the right answers of the exercises is the package's block."""
    torch.manual_seed(0)
    config = replace(preset("tiny").dit, kv_heads=heads)
    block = dit.Block(config, 32).double()
    torch.nn.init.normal_(block.gate)
    h, condition, steer = torch.randn(2, 6, 32), torch.randn(2, 5, 32), torch.randn(2, 32)
    h, condition, steer = (x.double() for x in (h, condition, steer))
    turns = check.angles.right(2, 3, 8)
    table = torch.polar(torch.ones_like(turns), turns)
    torch.testing.assert_close(dit.rotary_table(2, 3, 8, torch.device("cpu")), table.to(torch.complex64))
    scale, gate, ffn_scale, ffn_gate = block.norm1.linear(steer).chunk(4, -1)

    def projected(layer, x, context):
        count = layer.to_k.weight.shape[0] // layer.head_width
        q, k = layer.norm_q(layer.to_q(x)), layer.norm_k(layer.to_k(context))
        return tuple(p.unflatten(-1, (n, -1)) for p, n in ((q, 4), (k, count), (layer.to_v(context), count)))

    def attend(n):
        told = projected(block.attn2, n, block.norm1_context(condition))
        merged = check.two_attentions.right(projected(block.attn1, n, n), told, table, block.gate)
        return block.attn2.to_out[0](merged)

    def feed(n):
        weights = [getattr(block.feed_forward, f"linear_{k}").weight for k in (1, 2, 3)]
        return check.feed_forward.right(n, *weights)

    mine = check.sandwich.right(h, attend, block.norm1.norm.weight, block.norm2.weight, scale, gate)
    mine = check.sandwich.right(mine, feed, block.ffn_norm1.weight, block.ffn_norm2.weight, ffn_scale, ffn_gate)
    torch.testing.assert_close(mine, block(h, condition, steer, table), rtol=1e-9, atol=1e-12)
