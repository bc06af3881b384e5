"""Where the time goes: calls and seconds of each part of a model while something runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import process_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module


@contextmanager
def clocked(parts: Mapping[str, Module]) -> Iterator[dict[str, list]]:
    """Count calls and processor seconds of named parts: `with clocked({"dit": model.dit}) as spent: …`.

    `spent` holds [calls, seconds] for each name. The processor's time, not the wall's: other programs do not
    disturb it, and several threads add up. On a GPU it would only tell who starts the work.
    """
    spent: dict[str, list] = {name: [0, 0.0] for name in parts}
    hooks = []
    for name, part in parts.items():

        def before(*_, name: str = name) -> None:
            spent[name][1] -= process_time()

        def after(*_, name: str = name) -> None:
            spent[name][0] += 1
            spent[name][1] += process_time()

        hooks += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()
