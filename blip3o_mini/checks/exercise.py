"""Check a learner's function: right, not yet, or wrong, and where possible why.

An exercise knows the right function and the typical slips. A wrong answer is compared with what each slip
would have answered: the one that fits names the mistake. When none fits, the report shows the first place
where the answer differs, and a hint when the sign, a factor or the shape alone is off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slip:
    """A typical wrong answer, and the sentence that names it."""

    says: str
    wrong: Callable


@dataclass(frozen=True)
class Exercise:
    """Call it with the learner's function: it prints one report and tells whether the function is right.

    `cases` gives fresh, seeded lists of arguments; `right` and every slip's `wrong` take them like the
    learner's function. Answers may be tensors, numbers, strings, or tuples, lists and dictionaries of them.
    """

    number: str
    name: str
    minutes: int
    cases: Callable[[], Sequence[tuple]]
    right: Callable
    slips: tuple[Slip, ...] = field(default=())
    rtol: float = 1e-9
    atol: float = 1e-12

    def __call__(self, learner: Callable) -> bool:
        is_right, report = self.judge(learner)
        print(report)
        return is_right

    def judge(self, learner: Callable) -> tuple[bool, str]:
        """(whether it is right, the report); whatever the learner's function does, this does not raise."""
        title = f"{self.number} {self.name}"
        expected = [self.right(*case) for case in self.cases()]
        answers = []
        for k, case in enumerate(self.cases()):
            try:
                answers.append(learner(*case))
            except NotImplementedError:
                return False, self._not_yet()
            except Exception as error:  # the learner's code may do anything
                return False, f"✘ {title} — {type(error).__name__} in case {k + 1} ({told(case)}):\n  {error}"
        if all(answer is None for answer in answers):
            return False, self._not_yet()
        wrong = [k for k, answer in enumerate(answers) if difference(answer, expected[k], self.rtol, self.atol)]
        if not wrong:
            return True, f"✔ {title} — {len(answers)} cases, {largest(answers, expected)}"
        return False, f"✘ {title} — {self._diagnosis(answers, expected, wrong[0])}"

    def _not_yet(self) -> str:
        return (
            f"… {self.number} {self.name} — not yet (about {self.minutes} minutes). The package version is used below."
        )

    def _diagnosis(self, answers: list, expected: list, first: int) -> str:
        where = difference(answers[first], expected[first], self.rtol, self.atol)
        for slip in self.slips:
            if self._fits(slip, answers):
                return f"{slip.says}\n  First difference {where}."
        hint = relation(answers[first], expected[first])
        return f"case {first + 1} of {len(answers)}: first difference {where}." + (f"\n  {hint}" if hint else "")

    def _fits(self, slip: Slip, answers: list) -> bool:
        """Whether the slip explains every answer."""
        try:
            guesses = [slip.wrong(*case) for case in self.cases()]
        except Exception:  # a slip need not survive every case
            return False
        return not any(difference(a, g, self.rtol, self.atol) for a, g in zip(answers, guesses))


def difference(answer: Any, expected: Any, rtol: float, atol: float) -> str:
    """Where two answers differ first, in words; empty when they agree."""
    if isinstance(expected, Tensor):
        return _tensor_difference(answer, expected, rtol, atol)
    if isinstance(expected, dict):
        if not isinstance(answer, dict) or answer.keys() != expected.keys():
            return f"in the keys: expected {sorted(expected)}, got {told((answer,))}"
        pairs = [(f"at {key!r}", answer[key], value) for key, value in expected.items()]
    elif isinstance(expected, tuple | list):
        if not isinstance(answer, tuple | list) or len(answer) != len(expected):
            return f"in the number of results: expected {len(expected)}, got {told((answer,))}"
        pairs = [(f"in result {k + 1}", a, e) for k, (a, e) in enumerate(zip(answer, expected))]
    elif isinstance(expected, float):
        return _tensor_difference(torch.as_tensor(answer), torch.as_tensor(expected), rtol, atol)
    else:
        return "" if answer == expected else f"expected {expected!r}, got {answer!r}"
    found = ((place, difference(a, e, rtol, atol)) for place, a, e in pairs)
    return next((f"{place} {text}" for place, text in found if text), "")


def _tensor_difference(answer: Any, expected: Tensor, rtol: float, atol: float) -> str:
    if not isinstance(answer, Tensor):
        return f"in the type: expected a tensor, got {type(answer).__name__}"
    if answer.shape != expected.shape:
        return f"in the shape: expected {tuple(expected.shape)}, got {tuple(answer.shape)}"
    if answer.dtype.is_floating_point != expected.dtype.is_floating_point:
        return f"in the dtype: expected {expected.dtype}, got {answer.dtype}"
    answer, expected = answer.detach().to(torch.float64), expected.detach().to(torch.float64)
    is_close = torch.isclose(answer, expected, rtol=rtol, atol=atol, equal_nan=True)
    if is_close.all():
        return ""
    place = (~is_close).nonzero()[0].tolist()
    at = f"at {place}" if place else ""
    return f"{at}: expected {expected[tuple(place)]:.3g}, got {answer[tuple(place)]:.3g}".lstrip(": ")


def relation(answer: Any, expected: Any) -> str:
    """A hint when a wrong tensor is the right one up to a sign, a factor, a constant or a transposition."""
    if not (isinstance(answer, Tensor) and isinstance(expected, Tensor)):
        return ""
    answer, expected = answer.detach().to(torch.float64), expected.detach().to(torch.float64)
    if answer.shape != expected.shape:
        if answer.numel() == expected.numel() and answer.ndim == expected.ndim:
            return "It has as many numbers as the right one: look at the order of the axes."
        return ""
    if torch.allclose(answer, -expected):
        return "It is the right one with the opposite sign."
    size = expected.square().sum()
    factor = (answer * expected).sum() / size if size else torch.tensor(torch.nan)
    if torch.allclose(answer, factor * expected):
        return f"It is the right one times {factor:.3g}."
    shift = (answer - expected).mean()
    if torch.allclose(answer, expected + shift):
        return f"It is the right one plus {shift:.3g}."
    return ""


def largest(answers: Sequence, expected: Sequence) -> str:
    """The largest difference over all tensors of all cases, in words."""
    numbers = [
        float((a.detach().double() - e.detach().double()).abs().max())
        for answer, right in zip(answers, expected)
        for a, e in zip(flat(answer), flat(right))
        if isinstance(e, Tensor) and e.numel()
    ]
    return f"max difference {max(numbers):.1g}" if numbers else "all equal"


def flat(answer: Any) -> list:
    """The tensors and values inside an answer, in order."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    return [value for part in answer for value in flat(part)] if isinstance(answer, tuple | list) else [answer]


def told(case: tuple) -> str:
    """Arguments in a few words: shapes of tensors, short values."""
    words = [f"tensor{tuple(a.shape)}" if isinstance(a, Tensor) else repr(a) for a in case]
    return ", ".join(text if len(text) < 40 else f"{text[:37]}…" for text in words)


__all__ = ["Exercise", "Slip"]
