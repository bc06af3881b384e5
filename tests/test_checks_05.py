"""The checks of lesson 05 accept right answers and name what is wrong with others."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from blip3o_mini import flow
from blip3o_mini.checks import nb05_decoder as check
from blip3o_mini.checks.exercise import Exercise

EXERCISES = {
    e.name: e for e in (check.fold, check.layout, check.cross_attention, check.training_loss, check.draw)
}  # fmt: skip


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_right_answer_passes(exercise, capsys):
    assert exercise(exercise.right) is True
    assert capsys.readouterr().out.startswith(f"✔ {exercise.number} {exercise.name} — ")


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_every_slip_is_named_by_its_own_sentence(exercise: Exercise, capsys):
    assert len(exercise.slips) >= 3 and len({slip.says for slip in exercise.slips}) == len(exercise.slips)
    for slip in exercise.slips:
        assert exercise(slip.wrong) is False
        assert capsys.readouterr().out.startswith(f"✘ {exercise.number} {exercise.name} — {slip.says}")


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_what_is_not_written_yet_is_no_mistake(exercise, capsys):
    def empty(*case):
        raise NotImplementedError

    for learner in (empty, lambda *case: None):
        assert exercise(learner) is False
        assert capsys.readouterr().out.startswith(f"… {exercise.number} {exercise.name} — not yet")


# Right answers written in another way than the check's own.


def folded_by_slices(images, size):
    squares = [
        images[:, c : c + 1, y::size, x::size] for c in range(images.shape[1]) for y in range(size) for x in range(size)
    ]
    return torch.cat(squares, 1)


def laid_out_by_repeating(features, side):
    rows = round(features.shape[1] ** 0.5)
    grid = features.transpose(1, 2).reshape(len(features), -1, rows, rows)
    return grid.repeat_interleave(side // rows, 2).repeat_interleave(side // rows, 3)


def attended_by_torch(pixels, features, query, key, value, heads):
    split = [
        x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (pixels @ query.T, features @ key.T, features @ value.T)
    ]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def loss_by_the_package(guess, image, features, noise, sigma):
    return flow.loss(guess(flow.interpolate(image, noise, sigma), flow.timestep(sigma), features), image)


def drawn_by_the_package(guess, features, noise, steps):
    def velocity(x, sigma):
        return (x - guess(x, flow.timestep(sigma), features)) / sigma

    *_, image = flow.euler(velocity, noise, flow.sigmas(steps))
    return image


def drawn_by_ratios(guess, features, noise, steps):
    x, levels = noise, flow.sigmas(steps)
    for here, there in pairwise(levels):
        x = guess(x, 1000 * here, features) * (1 - there / here) + x * (there / here)
    return x


@pytest.mark.parametrize(
    "name, learner",
    [("fold", folded_by_slices), ("layout", laid_out_by_repeating), ("cross_attention", attended_by_torch),
     ("training_loss", loss_by_the_package), ("draw", drawn_by_the_package), ("draw", drawn_by_ratios)],
)  # fmt: skip
def test_other_right_answers_pass(name, learner, capsys):
    assert EXERCISES[name](learner) is True, capsys.readouterr().out


# Wrong answers as a student would write them, each with what the report must name.


def folded_as_quarters(images, size):
    b, c, h, w = images.shape
    grid = images.reshape(b, c, size, h // size, size, w // size).permute(0, 1, 2, 4, 3, 5)
    return grid.reshape(b, c * size * size, h // size, w // size)


def folded_colours_last(images, size):
    b, c, h, w = images.shape
    grid = images.reshape(b, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return grid.reshape(b, c * size * size, h // size, w // size)


def laid_out_without_transposing(features, side):
    rows = round(features.shape[1] ** 0.5)
    grid = features.view(len(features), features.shape[2], rows, rows)
    return grid.repeat_interleave(side // rows, 2).repeat_interleave(side // rows, 3)


def laid_out_softly(features, side):
    rows = round(features.shape[1] ** 0.5)
    return F.interpolate(features.mT.reshape(len(features), -1, rows, rows), (side, side), mode="bilinear")


def attended(pixels, features, query, key, value, heads, over=3, root=None):
    q, k, v = (
        x.reshape(len(x), x.shape[1], heads, -1).permute(0, 2, 1, 3)
        for x in (pixels @ query.mT, features @ key.mT, features @ value.mT)
    )
    weights = torch.softmax(torch.einsum("bhnc,bhqc->bhnq", q, k) / (root or q.shape[3] ** 0.5), over)
    return torch.einsum("bhnq,bhqc->bnhc", weights, v).flatten(2)


def loss_of_velocity(guess, image, features, noise, sigma):
    s = sigma[:, None, None, None]
    return (guess((1 - s) * image + s * noise, 1000 * sigma, features) - (noise - image)).pow(2).mean()


def loss_with_small_time(guess, image, features, noise, sigma):
    s = sigma[:, None, None, None]
    return (guess((1 - s) * image + s * noise, sigma, features) - image).pow(2).mean()


def loss_of_noise(guess, image, features, noise, sigma):
    s = sigma[:, None, None, None]
    return F.mse_loss(guess((1 - s) * image + s * noise, 1000 * sigma, features), noise)


def walked(guess, features, x, steps, sign=1, divide=True, last=True):
    for k in range(steps if last else steps - 1):
        here, there = 1 - k / steps, 1 - (k + 1) / steps
        away = (x - guess(x, 1000 * here, features)) * sign
        x = x - (here - there) * (away / here if divide else away)
    return x


PLANTED = [
    ("fold", lambda images, size: images.view(len(images), -1, *(n // size for n in images.shape[2:])), "far apart"),
    ("fold", folded_as_quarters, "large tiles"),
    ("fold", folded_colours_last, "pixel by pixel"),
    ("layout", laid_out_without_transposing, "mixed"),
    ("layout", laid_out_softly, "blended"),
    ("layout", lambda f, side: laid_out_by_repeating(f, side).transpose(2, 3), "rows and columns"),
    ("cross_attention", lambda *case: attended(*case, over=2), "over the pixels"),
    ("cross_attention", lambda *case: attended(*case, root=1.0), "not scaled"),
    ("cross_attention", lambda *case: attended(*case, root=case[0].shape[-1] ** 0.5), "whole width"),
    ("training_loss", loss_of_velocity, "with the velocity"),
    ("training_loss", loss_of_noise, "with the noise"),
    ("training_loss", loss_with_small_time, "thousandths"),
    ("draw", lambda *case: walked(*case, sign=-1), "away from the guess"),
    ("draw", lambda *case: walked(*case, divide=False), "divide by sigma"),
    ("draw", lambda *case: walked(*case, last=False), "stopped before"),
]


@pytest.mark.parametrize("name, learner, named", PLANTED, ids=[f"{name}: {named}" for name, _, named in PLANTED])
def test_planted_mistakes_are_named(name, learner, named, capsys):
    assert EXERCISES[name](learner) is False
    report = capsys.readouterr().out
    assert report.startswith("✘") and named in report


def test_the_checks_agree_with_the_decoder():
    """What the exercises ask for is what the package's decoder does."""
    from blip3o_mini.config import preset
    from blip3o_mini.decoder import Decoder

    torch.manual_seed(0)
    decoder = Decoder(preset("tiny").decoder).eval()
    features, noise = torch.randn(2, 9, 20), torch.randn(2, *decoder.noise_shape)
    seen = {}

    def guess(x, timestep, told):
        return decoder(x, timestep, told)

    decoder.unet.register_forward_pre_hook(lambda module, inputs: seen.update(first=inputs[0]))
    with torch.no_grad():
        by_check = check.draw.right(guess, features, noise, 2)
        by_package = decoder.decode(features, noise, 2)
        torch.testing.assert_close((check.decoder.unfold(by_check, 3) / 2 + 0.5).clamp(0, 1), by_package)
        laid = seen["first"][:, noise.shape[1] :]
        torch.testing.assert_close(check.layout.right(features, noise.shape[2]), laid, rtol=0, atol=0)
        attention = next(m for n, m in decoder.unet.named_modules() if n.endswith("attn2"))
        pixels = torch.randn(2, 5, attention.to_q.in_features)
        weights = [getattr(attention, f"to_{name}").weight for name in "qkv"]
        mine = attention.to_out[0](check.cross_attention.right(pixels, features, *weights, attention.heads))
        torch.testing.assert_close(mine, attention(pixels, encoder_hidden_states=features))
