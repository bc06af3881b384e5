"""Is there room for the weights? Asked before any is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

NARROWER = (torch.float32, torch.bfloat16)
CGROUP = Path("/sys/fs/cgroup")  # of a container, which may have less than the machine


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return min([psutil.virtual_memory().available, *container_memory()])


def container_memory() -> list[int]:
    """Bytes left to this container, if it has a limit; what the files in it keep cached can be had too."""
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit
        return []
    return [max(0, limit - used + int(lines.get("inactive_file", 0)))]


def size(count: float) -> str:
    """Bytes for people: 24_530_000_000 → "24.5 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def check_room(needed: Callable[[torch.dtype | None], int], device: torch.device, dtype: torch.dtype | None) -> None:
    """Raise ValueError when weights do not fit the device; needed(dtype) are their bytes, None as they are stored.

    The sentence says what would fit: another type of number, the machine's own memory instead of a GPU's.
    """
    free = {place.type: free_memory(place) for place in (device, torch.device("cpu")) if place.type != "meta"}
    if device.type == "meta" or needed(dtype) <= free[device.type]:
        return
    fitting = [
        f"{str(kind).removeprefix('torch.')} on {place} ({size(needed(kind))})"
        for place, room in free.items() for kind in NARROWER if needed(kind) <= room
    ]  # fmt: skip
    advice = f"would fit: {', '.join(fitting)}" if fitting else "nothing here is large enough; take a smaller model"
    here = size(free[device.type])
    raise ValueError(f"the weights need {size(needed(dtype))} of memory but {device.type} has {here} free; {advice}")
