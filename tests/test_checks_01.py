"""The checks of lesson 01 accept right answers and name what is wrong with others."""

import pytest
import torch
from torch.nn import functional as F

from blip3o_mini.checks import nb01_vision as check
from blip3o_mini.checks.exercise import Exercise

EXERCISES = {
    e.name: e
    for e in (
        check.patches, check.pool_grid, check.contrastive_loss, check.zero_shot, check._whitening_exercise
    )
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


def by_loops(images, size):
    rows, columns = images.shape[2] // size, images.shape[3] // size
    squares = [
        images[:, :, size * r : size * (r + 1), size * c : size * (c + 1)].flatten(1)
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(squares, 1)


def patches_without_a_permutation(images, size):
    b, c, h, w = images.shape
    return images.reshape(b, (h // size) * (w // size), c * size * size)


def patches_with_colours_last(images, size):
    b, c, h, w = images.shape
    grid = images.reshape(b, c, h // size, size, w // size, size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, c * size * size)


def patches_down_the_columns(images, size):
    b, c, h, w = images.shape
    grid = images.reshape(b, c, h // size, size, w // size, size)
    return grid.permute(0, 4, 2, 1, 3, 5).reshape(b, -1, c * size * size)


def pooled_in_sequence(tokens, pool):
    return torch.stack([chunk.mean(1) for chunk in tokens.split(pool**2, dim=1)], 1)


def pooled_without_transposing(tokens, pool):
    side = round(tokens.shape[1] ** 0.5)
    return F.avg_pool2d(tokens.view(len(tokens), -1, side, side), pool).flatten(2).mT


def pooled_to_the_largest(tokens, pool):
    side = round(tokens.shape[1] ** 0.5)
    return F.max_pool2d(tokens.mT.unflatten(2, (side, side)), pool).flatten(2).mT


def loss_of(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)))


def loss_without_lengths(image, text, scale):
    logits = scale * image @ text.T
    return (loss_of(logits) + loss_of(logits.T)) / 2


def loss_one_way(image, text, scale):
    return loss_of(scale * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T)


def loss_divided(image, text, scale):
    logits = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / scale
    return (loss_of(logits) + loss_of(logits.T)) / 2


def cosines(image, labels):
    return torch.cosine_similarity(image[:, None], labels[None], dim=2)


def whitened(tokens, kept, flip=True, root=True, centre=True):
    mean = tokens.mean(0)
    covariance = torch.cov(tokens.T) if centre else tokens.T @ tokens / (len(tokens) - 1)
    variance, directions = torch.linalg.eigh(covariance)
    if flip:
        variance, directions = variance.flip(0), directions.flip(1)
    return mean, directions[:, :kept] / (variance[:kept].sqrt() if root else variance[:kept])


# (exercise, a wrong answer written apart from the check's own, words of its diagnosis)
PLANTED = [
    ("patches", patches_without_a_permutation, "without moving an axis"),
    ("patches", patches_with_colours_last, "first all of red"),
    ("patches", patches_down_the_columns, "row by row"),
    ("pool_grid", pooled_in_sequence, "one row below"),
    ("pool_grid", pooled_without_transposing, "Transpose first"),
    ("pool_grid", pooled_to_the_largest, "The average is asked for"),
    ("contrastive_loss", loss_without_lengths, "not normalised"),
    ("contrastive_loss", loss_one_way, "for each text, which picture?"),
    ("contrastive_loss", loss_divided, "inverse of a temperature"),
    ("zero_shot", lambda i, t, s: (s * cosines(i, t)).softmax(0), "over the labels"),
    ("zero_shot", lambda i, t, s: s * cosines(i, t), "softmax is missing"),
    ("zero_shot", lambda i, t, s: cosines(i, t).softmax(1), "scale is missing"),
    ("whitening", lambda x, k: whitened(x, k, flip=False), "flip before you cut"),
    ("whitening", lambda x, k: whitened(x, k, root=False), "has variance 1"),
    ("whitening", lambda x, k: whitened(x, k, centre=False), "points to the mean"),
]


@pytest.mark.parametrize(("name", "wrong", "words"), PLANTED)
def test_planted_mistakes_are_diagnosed(name, wrong, words, capsys):
    assert getattr(check, name)(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✘ ") and words in said and "First difference" in said


def test_patches_equal_a_loop(capsys):
    assert check.patches(by_loops), capsys.readouterr().out


def test_any_signs_of_the_directions_are_right():
    def mirrored(tokens, kept):
        mean, projection = whitened(tokens, kept)
        return mean, projection * torch.tensor([(-1.0) ** k for k in range(kept)])

    assert check.whitening(whitened) and check.whitening(mirrored)


@pytest.mark.parametrize("answer", [3, (1, 2), (torch.zeros(3), torch.zeros(3)), torch.zeros(2)])
def test_a_whitening_of_another_form_is_no_crash(answer, capsys):
    assert check.whitening(lambda *case: answer) is False
    assert capsys.readouterr().out.startswith("✘ 1.5 whitening — ")


def test_a_whitening_slip_is_told_whatever_its_signs(capsys):
    def wrong(tokens, kept):
        mean, projection = whitened(tokens, kept, root=False)
        return mean, -projection

    assert check.whitening(wrong) is False and "has variance 1" in capsys.readouterr().out
