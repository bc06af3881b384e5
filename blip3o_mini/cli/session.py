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


def open_session(args: argparse.Namespace) -> Session:
    """Load --checkpoint on --device. Call it after every cheap check of the request."""
    start = time.perf_counter()
    from ..checkpoint import choose_device
    from ..model import Blip3oMini

    device, reason = choose_device(args.device)
    offload = args.offload or ()
    if "auto" in offload:
        offload = "auto"
    model = Blip3oMini.from_pretrained(args.checkpoint, device=device, dtype=args.dtype, offload=offload)
    return Session(model, args.checkpoint, str(device), reason, time.perf_counter() - start)


def note(text: str) -> None:
    """A remark for the person at the keyboard: to stderr, so that results can be piped."""
    print(text, file=sys.stderr, flush=True)
