"""What every command with a model does first: choose the device, say why, load the checkpoint."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass


@dataclass
class Session:
    """A loaded model, the device with the reason for it, and how long loading took."""

    model: object
    name: str
    device: str
    reason: str
    seconds: float

    @property
    def place(self) -> str:
        return f"{self.device} ({self.reason})"


def choose_device(name: str) -> tuple[str, str]:
    """Resolve --device to (device, reason). Raises ValueError when what was asked for is not there."""
    import torch

    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda", torch.cuda.get_device_name(0)
        return ("mps", "Apple GPU") if has_mps else ("cpu", "no GPU found")
    if name.startswith("cuda"):
        count, index = torch.cuda.device_count(), int((name.partition(":")[2]) or 0)
        if index >= count:
            raise ValueError(f"there is no CUDA GPU number {index} (torch sees {count}); use --device cpu")
        return name, torch.cuda.get_device_name(index)
    if name == "mps" and not has_mps:
        raise ValueError("--device mps needs an Apple GPU, but torch sees none; use --device cpu")
    return name, "as asked"


def open_session(args: argparse.Namespace) -> Session:
    """Load --checkpoint on --device. Call it after every cheap check of the request."""
    start = time.perf_counter()
    device, reason = choose_device(args.device)
    from ..model import Blip3oMini

    model = Blip3oMini.from_pretrained(args.checkpoint, device=device)
    return Session(model, args.checkpoint, device, reason, time.perf_counter() - start)


def note(text: str) -> None:
    """A remark for the person at the keyboard: to stderr, so that results can be piped."""
    print(text, file=sys.stderr, flush=True)
