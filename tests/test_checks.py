"""The checks of the lessons: right answers pass, typical slips are named, and nothing a learner writes breaks them."""

import importlib
import pkgutil

import numpy as np
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
        (lambda x: 2 * x * (1 + 1e-5), "expected 2, got 2.00002"),
        (lambda x: 2 * x * (1 + 1e-6), "nearly right"),
        (lambda x: (2 * x).half() / 3, "times 0.333"),
        (lambda x: 2 * x * torch.nan, "not a number"),
        (lambda x: (2 * x).int(), "dtype: expected torch.float32, got torch.int32"),
        (lambda x: (2 * x).numpy(), "expected a tensor, got ndarray"),
        (lambda x: (2 * x).to("meta"), "without plain numbers"),
        (lambda x: (y for y in x), "got generator"),
        (lambda x: exit("enough"), "SystemExit"),
    ],
)
def test_wrong_answers_are_diagnosed(learner, told):
    is_right, report = DOUBLE.judge(learner)
    assert not is_right and report.startswith("✘ 0.1 double — ")
    assert told in report, report


def judged(right, learner, **tolerance) -> tuple[bool, str]:
    return Exercise("0.2", "kinds", 5, lambda: [(2.0,), (3.0,)], right, **tolerance).judge(learner)


def test_rounding_to_a_coarser_dtype_is_named():
    right = lambda x: torch.tensor([x / 3], dtype=torch.float64)  # noqa: E731
    is_right, report = judged(right, lambda x: right(x).float())
    assert not is_right and "right as far as torch.float32 goes" in report and "nearly" not in report


def test_python_numbers_are_compared_in_double_precision():
    assert judged(lambda x: x / 3, lambda x: x / 3)[0] and judged(lambda x: 2 * x, lambda x: int(2 * x))[0]
    is_right, report = judged(lambda x: x / 3, lambda x: x / 3 + 1e-8)
    assert not is_right and "expected 0.66666667, got 0.66666668" in report
    for nonsense in (lambda x: None if x > 2 else x / 3, lambda x: "a", lambda x: [x]):
        assert "expected a number" in judged(lambda x: x / 3, nonsense)[1]


def test_numpy_results_are_compared_like_tensors():
    right = lambda x: np.arange(3.0) * x  # noqa: E731
    is_right, report = judged(right, right)
    assert is_right and "max difference 0" in report
    assert "times 0.5" in judged(right, lambda x: right(x) / 2)[1]
    assert "shape: expected (3,), got (2,)" in judged(right, lambda x: right(x)[:2])[1]


@pytest.mark.parametrize("expected", [torch.ones(2), np.ones(2), 1.5, 2, "a", None, (1, 2), [torch.ones(2)], {"k": 1}])
def test_no_answer_whatever_makes_a_check_fall_over(expected):
    class Spiteful:
        def __eq__(self, other):
            raise RuntimeError("no")

        __hash__ = None
        __repr__ = __eq__

    odd = (3, 3.5, "b", [], {}, (None,), object, Spiteful(), torch.ones(3), np.ones((2, 2)), 1j, torch.tensor(1j))
    for answer in odd:
        report = judged(lambda x: expected, lambda x, answer=answer: answer)[1]
        assert report.startswith("✘ 0.2 kinds — ") and " at 0x" not in report and report.count("\n") <= 2, report


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
