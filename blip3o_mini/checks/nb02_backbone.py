"""Checks of lesson 02: the chat template, rotary positions, attention, pictures as tokens, and the queries."""

from __future__ import annotations

import torch

from .. import attention
from ..tokens import ASSISTANT, CHAT_TEMPLATE, END, IMAGE_PAD, USER, VISION_END, VISION_START
from .exercise import Exercise, Slip


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ 2.1 the chat template


def _talks() -> list[tuple]:
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a star"}]
    parts = [{"type": "image"}, {"type": "text", "text": "what is it?"}]
    shown = [{"role": "user", "content": parts}]
    return [(said[:1], True), (said, False), ([*said, *shown], True), ([*shown, *said[1:]], False)]


def by_template(messages, is_open=True):
    """What the tokenizer's own template makes of a conversation."""
    from jinja2 import Template

    return Template(CHAT_TEMPLATE).render(messages=messages, add_generation_prompt=is_open)


PICTURE = f"{VISION_START}{IMAGE_PAD}{VISION_END}"


def _rendered(messages, is_open, *, ends=("assistant",), picture=PICTURE, after="", opening=None):
    text = ""
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text += {"user": USER, "assistant": ASSISTANT}[message["role"]]
        text += "".join(picture if part["type"] == "image" else part["text"] for part in parts)
        text += (END if message["role"] in ends else "") + after
    return text + (ASSISTANT * is_open if opening is None else opening)


render = Exercise(
    "2.1", "render", 10, _talks, by_template,
    (
        Slip(
            "the assistant's turns are not closed. Without <|im_end|> a model never learns when to stop.",
            lambda m, o: _rendered(m, o, ends=()),
        ),
        Slip(
            "every turn is closed, as in Qwen's own template. Here only the assistant's is: the user's turn is over "
            "when <|assistant|> comes.",
            lambda m, o: _rendered(m, o, ends=("user", "assistant")),
        ),
        Slip(
            "is_open has no effect: <|assistant|> at the end asks for an answer, and only then.",
            lambda m, o: _rendered(m, o, opening=""),
        ),
        Slip(
            "every conversation ends in <|assistant|>; with is_open=False none is asked for.",
            lambda m, o: _rendered(m, o, opening=ASSISTANT),
        ),
        Slip(
            "pictures leave no trace. Each is <|vision_start|><|image_pad|><|vision_end|>, where it stands.",
            lambda m, o: _rendered(m, o, picture=""),
        ),
        Slip("turns are separated by line breaks. This template has none.", lambda m, o: _rendered(m, o, after="\n")),
    ),
)  # fmt: skip

# ------------------------------------------------------------------ 2.2 rotary positions


def _turns() -> list[tuple]:
    return [
        (_random(1, 2, 5, 8, seed=1), torch.arange(5), 100.0),
        (_random(2, 1, 3, 4, seed=2), torch.arange(7, 10), 10_000.0),
        (_random(4, 6, seed=3), torch.tensor([0, 3, 3, 1]), 50.0),
    ]


def _turned(x, positions, theta, *, sign=1, shift=0, share=1.0, neighbours=False, scaled=True):
    half = x.shape[-1] // 2
    speed = theta ** (-share * torch.arange(half).to(x) / half) if scaled else torch.ones(half).to(x)
    angle = sign * (positions[:, None].to(x) + shift) * speed
    first, second = (x[..., ::2], x[..., 1::2]) if neighbours else (x[..., :half], x[..., half:])
    turned = first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()
    return torch.stack(turned, -1).flatten(-2) if neighbours else torch.cat(turned, -1)


rotate = Exercise(
    "2.2", "rotate", 15, _turns, attention.rotate,
    (
        Slip(
            "you pair neighbours (0, 1), (2, 3), … as the first papers do. Qwen pairs the two halves: i with i + W/2.",
            lambda *case: _turned(*case, neighbours=True),
        ),
        Slip(
            "you turn the other way round. The first half is first · cos − second · sin.",
            lambda *case: _turned(*case, sign=-1),
        ),
        Slip(
            "your positions are one too high: the first token stands at 0 and is not turned.",
            lambda *case: _turned(*case, shift=1),
        ),
        Slip(
            "the speeds fall half as fast as they should: the exponent is −i / (W/2) for i = 0 … W/2 − 1.",
            lambda *case: _turned(*case, share=0.5),
        ),
        Slip(
            "all pairs turn at the same speed. Pair i turns theta^(−2i/W) times as fast as the first.",
            lambda *case: _turned(*case, scaled=False),
        ),
    ),
    rtol=1e-5, atol=1e-6,  # speeds in float32, as torch.arange(half) / half and transformers have them, are right
)  # fmt: skip

# ------------------------------------------------------------------ 2.3 grouped causal attention


def _looks() -> list[tuple]:
    sizes = ((1, 4, 2, 5, 5, 6), (2, 6, 2, 3, 3, 4), (1, 2, 2, 2, 5, 3), (2, 4, 1, 1, 4, 2))  # last two: kept keys
    return [
        (_random(b, n, t, w, seed=k), _random(b, m, s, w, seed=k + 20), _random(b, m, s, w, seed=k + 40))
        for k, (b, n, m, t, s, w) in enumerate(sizes)
    ]


def _attended(q, k, v, *, power=0.5, tiled=False, mask="causal", axis=-1):
    group = q.shape[1] // k.shape[1]
    k, v = ((x.repeat(1, group, 1, 1) if tiled else x.repeat_interleave(group, 1)) for x in (k, v))
    scores = q @ k.mT / q.shape[-1] ** power
    length, total = scores.shape[-2:]
    start = {"causal": total - length + 1, "corner": 1, "strict": total - length, "none": total}[mask]
    weights = scores.masked_fill(torch.ones(length, total).triu(start).bool(), -torch.inf).softmax(axis)
    return weights @ v, weights


attend = Exercise(
    "2.3", "attend", 20, _looks, attention.attend,
    (
        Slip(
            "every token sees the future. Where k comes later than q, the score must be −inf.",
            lambda *case: _attended(*case, mask="none"),
        ),
        Slip(
            "the mask starts in the wrong corner. When q has fewer tokens than k, they are the *last* ones: the last "
            "row sees everything.",
            lambda *case: _attended(*case, mask="corner"),
        ),
        Slip(
            "a token does not see itself; the first then has nothing to look at (nan).",
            lambda *case: _attended(*case, mask="strict"),
        ),
        Slip(
            "the scores are not divided by √W: the weights are sharper than they should be.",
            lambda *case: _attended(*case, power=0),
        ),
        Slip("you divide by W; it is √W.", lambda *case: _attended(*case, power=1)),
        Slip(
            "the groups are mixed up: heads 0, 1, … of q share head 0 of k (repeat_interleave), not every other one.",
            lambda *case: _attended(*case, tiled=True),
        ),
        Slip(
            "the softmax runs over the wrong axis. What one token takes from all others must add up to 1.",
            lambda *case: _attended(*case, axis=-2),
        ),
    ),
)  # fmt: skip

# ------------------------------------------------------------------ 2.4 pictures as tokens


def _row(*lengths: int) -> torch.Tensor:
    """Where pictures stand in a row of so many words, cells, words, cells, …"""
    return torch.cat([torch.full((n,), k % 2 == 1) for k, n in enumerate(lengths)])


def _pages() -> list[tuple]:
    pages = ([_row(1, 9, 2)], [_row(1, 9, 3), _row(4, 9)], [_row(2, 9, 1, 9), _row(21)])
    return [
        (_random(*where.shape, 6, seed=k), where, _random(int(where.sum()) // 9, 9, 6, seed=k + 9))
        for k, where in enumerate(map(torch.stack, pages))
    ]


def placed(embeddings, is_image, features):
    """As `Backbone.embed` does it: the i-th place takes the i-th row of features."""
    return embeddings.masked_scatter(is_image[..., None], features)


def _sideways(features):
    return features.unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2)


place = Exercise(
    "2.4", "place", 10, _pages, placed,
    (
        Slip(
            "the features are added to the placeholders. They replace them: a placeholder means nothing by itself.",
            lambda e, m, f: e + placed(torch.zeros_like(e), m, f),
        ),
        Slip(
            "every picture got the cells of the first one. The i-th place takes the i-th row of all features.",
            lambda e, m, f: placed(e, m, f[:1].expand_as(f).contiguous()),
        ),
        Slip(
            "the cells enter column by column. They stand in reading order, row by row.",
            lambda e, m, f: placed(e, m, _sideways(f)),
        ),
        Slip(
            "the pictures enter in reverse order. Fill the places from the beginning.",
            lambda e, m, f: placed(e, m, f.flip(0)),
        ),
        Slip("the embeddings come back unchanged: no picture got in.", lambda e, m, f: e),
    ),
)  # fmt: skip

# ------------------------------------------------------------------ 2.5 queries behind the prompt


def _run(embeddings):
    """Stands in for a backbone: causal, and what comes late knows what came before."""
    return embeddings + embeddings.cumsum(1).tanh()


def _prompts() -> list[tuple]:
    sizes = ((1, 5, 3, 4), (3, 6, 2, 5), (2, 4, 4, 3))
    return [(_run, _random(b, t, h, seed=k), _random(1, q, h, seed=k + 5)) for k, (b, t, q, h) in enumerate(sizes)]


def read_behind(run, prompt, queries):
    """As `Backbone.condition` does it, in one pass: the states at the queries that follow the prompt."""
    behind = queries.expand(len(prompt), -1, -1)
    return run(torch.cat([prompt, behind], 1))[:, -queries.shape[1] :]


def _one_by_one(run, prompt, queries):
    return torch.cat([read_behind(run, prompt, one) for one in queries.split(1, 1)], 1)


def _in_front(run, prompt, queries):
    return run(torch.cat([queries.expand(len(prompt), -1, -1), prompt], 1))


read_out = Exercise(
    "2.5", "read_out", 10, _prompts, read_behind,
    (
        Slip(
            "the queries cannot see a word of the prompt: they stand in front of it, or it is not there. Put them "
            "behind it.",
            lambda run, p, q: _in_front(run, p, q)[:, : q.shape[1]],
        ),
        Slip(
            "the queries are in front and you read at the last words. Put them behind and read at the queries.",
            lambda run, p, q: _in_front(run, p, q)[:, -q.shape[1] :],
        ),
        Slip(
            "you read at the last words of the prompt: the queries have no say.",
            lambda run, p, q: run(p)[:, -q.shape[1] :],
        ),
        Slip(
            "you read the first states, which belong to the prompt. The queries' are the last ones.",
            lambda run, p, q: run(torch.cat([p, q.expand(len(p), -1, -1)], 1))[:, : q.shape[1]],
        ),
        Slip("only the last query is read. Every query's state is wanted.",
             lambda run, p, q: read_behind(run, p, q)[:, -1:]),
        Slip("each query stands alone behind the prompt. They go in together: later ones see earlier ones.",
             _one_by_one),
    ),
)  # fmt: skip
