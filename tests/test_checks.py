"""The checks of the lessons: right answers pass, typical slips are named, and nothing a learner writes breaks them."""

import importlib
import pkgutil

import pytest
import torch

from blip3o_mini import checks
from blip3o_mini.checks.exercise import Exercise, Slip, difference

LESSONS = [name for _, name, _ in pkgutil.iter_modules(checks.__path__) if name.startswith("nb")]
EXERCISES = [
    exercise
    for lesson in LESSONS
    for exercise in vars(importlib.import_module(f"blip3o_mini.checks.{lesson}")).values()
    if isinstance(exercise, Exercise)
]
DOUBLE = Exercise(
    "0.1", "double", 5, lambda: [(torch.tensor([1.0, -2.0]),), (torch.tensor([[3.0, 4.0]]),)], lambda x: 2 * x,
    (Slip("you square.", lambda x: x**2), Slip("you add two.", lambda x: x + 2)),
)  # fmt: skip


@pytest.fixture(params=EXERCISES, ids=lambda e: f"{e.number} {e.name}")
def exercise(request) -> Exercise:
    return request.param


def test_the_right_answer_passes(exercise):
    is_right, report = exercise.judge(exercise.right)
    assert is_right and report.startswith(f"✔ {exercise.number} {exercise.name} — "), report


def test_every_slip_is_told_by_its_own_sentence(exercise):
    assert len(exercise.slips) >= 3
    assert len({slip.says for slip in exercise.slips}) == len(exercise.slips)
    for slip in exercise.slips:
        is_right, report = exercise.judge(slip.wrong)
        assert not is_right and slip.says in report, report


def test_an_empty_answer_is_not_yet(exercise):
    def unwritten(*_):
        raise NotImplementedError

    for learner in (unwritten, lambda *_: None):
        is_right, report = exercise.judge(learner)
        assert not is_right and report.startswith("…") and str(exercise.minutes) in report


@pytest.mark.parametrize(
    ("learner", "told"),
    [
        (lambda x: -2 * x, "opposite sign"),
        (lambda x: 6 * x, "times 3"),
        (lambda x: 2 * x + 1, "plus 1"),
        (lambda x: 2 * x[:1], "shape"),
        (lambda x: "two", "expected a tensor, got str"),
        (lambda x: 2 * y, "NameError"),  # noqa: F821
        (lambda: 2, "TypeError"),
        (lambda x: x**2, "you square"),
        (lambda x: x + 2, "you add two"),
        (lambda x: torch.tensor([2.0, 5.0]), "expected -4, got 5"),
    ],
)
def test_wrong_answers_are_diagnosed(learner, told):
    is_right, report = DOUBLE.judge(learner)
    assert not is_right and report.startswith("✘ 0.1 double — ")
    assert told in report, report


def test_results_of_several_kinds_are_compared():
    right = (torch.ones(2), [1.5, "a"], {"k": 3})
    assert difference((torch.ones(2), [1.5, "a"], {"k": 3}), right, 1e-9, 0) == ""
    assert "in result 2 in result 1" in difference((torch.ones(2), [1.6, "a"], {"k": 3}), right, 1e-9, 0)
    assert "'a', got 'b'" in difference((torch.ones(2), [1.5, "b"], {"k": 3}), right, 1e-9, 0)
    assert "at 'k' expected 3" in difference((torch.ones(2), [1.5, "a"], {"k": 4}), right, 1e-9, 0)
    assert "number of results" in difference((torch.ones(2),), right, 1e-9, 0)
    assert "keys" in difference({}, {"k": 1}, 0, 0)


def test_a_call_prints_one_report(capsys):
    assert DOUBLE(lambda x: x + x)
    assert capsys.readouterr().out == "✔ 0.1 double — 2 cases, max difference 0\n"
