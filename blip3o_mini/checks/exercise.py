"""Check a learner's function: right, not yet, or wrong, and where possible why.

An exercise knows the right function and the typical slips. A wrong answer is compared with what each slip
would have answered: the one that fits names the mistake. When none fits, the report shows the first place
where the answer differs, and a hint when the sign, a factor or the shape alone is off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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
            except (Exception, SystemExit) as error:  # the learner's code may do anything
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
        where = f": {where}" if where.startswith("expected") else f" {where}"
        for slip in self.slips:
            if self._fits(slip, answers):
                return f"{slip.says}\n  First difference{where}."
        hint = "" if "in the dtype" in where else _hint(answers[first], expected[first])
        return f"case {first + 1} of {len(answers)}: first difference{where}." + (f"\n  {hint}" if hint else "")

    def _fits(self, slip: Slip, answers: list) -> bool:
        """Whether the slip explains every answer."""
        try:
            guesses = [slip.wrong(*case) for case in self.cases()]
        except Exception:  # a slip need not survive every case
            return False
        return not any(difference(a, g, self.rtol, self.atol) for a, g in zip(answers, guesses))


def _hint(answer: Any, expected: Any) -> str:
    try:
        return relation(answer, expected)
    except Exception:  # a hint is a kindness; without one the report is still true
        return ""


def difference(answer: Any, expected: Any, rtol: float, atol: float) -> str:
    """Where two answers differ first, in words; empty when they agree. Never raises."""
    try:
        if isinstance(expected, np.ndarray):
            answer, expected = _as_torch(answer), _as_torch(expected)
        return _difference(answer, expected, rtol, atol)
    except Exception:  # a learner's answer can be any object, also one that cannot be compared
        return f"in the type: expected {kind(expected)}, got {kind(answer)}"


def _difference(answer: Any, expected: Any, rtol: float, atol: float) -> str:
    if isinstance(expected, Tensor):
        return _tensor_difference(answer, expected, rtol, atol)
    if isinstance(expected, dict):
        if not isinstance(answer, dict) or answer.keys() != expected.keys():
            return f"in the keys: expected {list(expected)}, got {told((answer,))}"
        pairs = [(f"at {key!r}", answer[key], value) for key, value in expected.items()]
    elif isinstance(expected, tuple | list):
        if not isinstance(answer, tuple | list) or len(answer) != len(expected):
            return f"in the number of results: expected {len(expected)}, got {told((answer,))}"
        pairs = [(f"in result {k + 1}", a, e) for k, (a, e) in enumerate(zip(answer, expected))]
    elif isinstance(expected, float):
        if isinstance(answer, str | tuple | list | dict | complex) or answer is None:
            return f"in the type: expected a number, got {kind(answer)}"
        # footgun: as_tensor makes float32 of a Python float, and small errors would vanish
        exact = torch.tensor(expected, dtype=torch.float64)
        number = answer if isinstance(answer, Tensor) else torch.as_tensor(answer, dtype=torch.float64)
        return _tensor_difference(number, exact, rtol, atol)
    else:
        return "" if bool(answer == expected) else f"expected {told((expected,))}, got {told((answer,))}"
    found = ((place, difference(a, e, rtol, atol)) for place, a, e in pairs)
    return next((f"{place} {text}" for place, text in found if text), "")


def _tensor_difference(answer: Any, expected: Tensor, rtol: float, atol: float) -> str:
    if not isinstance(answer, Tensor):
        return f"in the type: expected a tensor, got {kind(answer)}"
    if answer.shape != expected.shape:
        return f"in the shape: expected {tuple(expected.shape)}, got {tuple(answer.shape)}"
    kinds = [(x.dtype.is_floating_point, x.dtype.is_complex) for x in (answer, expected)]
    if kinds[0] != kinds[1]:
        return f"in the dtype: expected {expected.dtype}, got {answer.dtype}"
    is_coarse = answer.dtype.itemsize < expected.dtype.itemsize
    answer, expected, coarse = answer.detach().cpu().double(), expected.detach().cpu().double(), answer.dtype
    is_close = torch.isclose(answer, expected, rtol=rtol, atol=atol, equal_nan=True)
    if is_close.all():
        return ""
    if is_coarse and torch.allclose(answer, expected, rtol=2 * torch.finfo(coarse).eps, atol=1e-6, equal_nan=True):
        return f"in the dtype: the numbers are right as far as {coarse} goes, but the inputs are finer; do not round"
    place = (~is_close).nonzero()[0].tolist()
    at = f"at {place}" if place else ""
    return f"{at}: {apart(float(expected[tuple(place)]), float(answer[tuple(place)]))}".lstrip(": ")


def apart(expected: float, got: float) -> str:
    """Two unequal numbers with as many digits as it takes to tell them apart."""
    digits = next((d for d in range(3, 17) if f"{expected:.{d}g}" != f"{got:.{d}g}"), 17)
    return f"expected {expected:.{digits}g}, got {got:.{digits}g}"


def relation(answer: Any, expected: Any) -> str:
    """A hint when a wrong tensor is the right one up to a sign, a factor, a constant or a transposition."""
    answer, expected = _as_torch(answer), _as_torch(expected)
    if not (isinstance(answer, Tensor) and isinstance(expected, Tensor)) or answer.is_complex():
        return ""
    answer, expected = answer.detach().double(), expected.detach().double()
    if answer.shape != expected.shape:
        if answer.numel() == expected.numel() and answer.ndim == expected.ndim:
            return "It has as many numbers as the right one: look at the order of the axes."
        return ""
    if answer.isnan().any() and not expected.isnan().any():
        return "It holds numbers that are not a number (nan): look for 0/0, or the logarithm or root of a negative."
    if torch.allclose(answer, expected):
        return "It is nearly right: only digits far behind the point differ. Look for a rounding or a small constant."
    if torch.allclose(answer, -expected):
        return "It is the right one with the opposite sign."
    size = expected.square().sum()
    factor = (answer * expected).sum() / size if size else torch.tensor(torch.nan)
    if factor and torch.allclose(answer, factor * expected):
        return f"It is the right one times {factor:.3g}."
    if answer.ndim > 1 and answer.shape[-1] == answer.shape[-2] and torch.allclose(answer.mT, expected):
        return "It is the right one with its last two axes swapped."
    shift = (answer - expected).mean()
    if torch.allclose(answer, expected + shift):
        return f"It is the right one plus {shift:.3g}."
    return ""


def _as_torch(answer: Any) -> Any:
    """numpy's arrays as tensors; everything else as it is."""
    is_numeric = isinstance(answer, np.ndarray) and answer.dtype.kind in "biufc"
    return torch.as_tensor(np.ascontiguousarray(answer)).view(answer.shape) if is_numeric else answer


def kind(answer: Any) -> str:
    """The type of an answer in one or two words."""
    if isinstance(answer, Tensor):
        return "a tensor" if answer.layout == torch.strided and not answer.is_meta else "a tensor without plain numbers"
    return "None" if answer is None else type(answer).__name__


def largest(answers: Sequence, expected: Sequence) -> str:
    """The largest difference over all tensors of all cases, in words."""
    numbers = [
        float((a.detach().double() - e.detach().double()).abs().nan_to_num().max())
        for answer, right in zip(answers, expected)
        for a, e in zip(map(_as_torch, flat(answer)), map(_as_torch, flat(right)))
        if isinstance(e, Tensor) and e.numel()
    ]
    if not numbers:
        return "all equal"
    # the last bits differ from machine to machine; the report is a committed output
    return f"max difference {'below 1e-12' if 0 < max(numbers) < 1e-12 else f'{max(numbers):.1g}'}"


def flat(answer: Any) -> list:
    """The tensors and values inside an answer, in order."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    return [value for part in answer for value in flat(part)] if isinstance(answer, tuple | list) else [answer]


def told(case: tuple) -> str:
    """Arguments in a few words: shapes of tensors, short values."""
    words = [f"tensor{tuple(a.shape)}" if isinstance(a, Tensor) else _repr(a) for a in case]
    return ", ".join(text if len(text) < 40 else f"{text[:37]}…" for text in words)


def _repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return kind(value)
    # no addresses in memory: they change with every run, and the report is a committed output
    return getattr(value, "__name__", kind(value)) if " at 0x" in text else text


__all__ = ["Exercise", "Slip"]
