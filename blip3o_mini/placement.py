"""Where the parts of a large model stand while it works: on the device, or in main memory and visiting it.

A part that is left in main memory has its layers brought to the device one by one, each for the moment in which it
is called (accelerate's hooks). What is called seldom is the cheapest to leave behind: the image tower only encodes,
the backbone reads a prompt in one pass, the DiT walks 60 and the pixel decoder 100 passes for one picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

ORDER = ("vision", "backbone", "dit", "decoder")  # by passes for one picture, fewest first
ROOM = 3e9  # bytes for what is computed: one picture needs about 2.2 GB beside the weights, see `blip3o-mini info`


def without_weights():
    """A context in which new modules get parameters that take no memory (device meta), and real buffers.

    footgun: under torch.device("meta") the tables that a module computes when it is made, and that no file
    holds, would be lost too.
    """
    from accelerate import init_empty_weights

    return init_empty_weights(include_buffers=False)


def choose(sizes: Mapping[str, int], room: float) -> tuple[str, ...]:
    """Parts to leave in main memory, so that the others leave ROOM of `room` bytes free.

    sizes: bytes of every part that is used. Raises ValueError when even the visitors have no room.
    """
    left = [part for part in ORDER if part in sizes]
    behind: list[str] = []
    while sum(sizes[part] for part in left) > room - ROOM:
        if not left:
            needed = f"{ROOM / 1e9:.0f} GB are needed at least"
            raise ValueError(f"{room / 1e9:.1f} GB are too little to compute with; {needed}")
        behind.append(left.pop(0))
    return tuple(behind)


def check_parts(parts: Sequence[str] | str) -> tuple[str, ...]:
    """The parts as they were named; raises ValueError on an unknown one."""
    parts = (parts,) if isinstance(parts, str) else tuple(parts)
    for part in parts:
        if part not in ORDER:
            raise ValueError(f"there is no part {part!r} to offload; choose from {', '.join(ORDER)}, or auto")
    return parts


def networks(model: nn.Module, part: str) -> Iterator[nn.Module]:
    """What is large in a part; small things such as the queries always stand on the device."""
    if part == "backbone":
        yield model.backbone.language
    elif part == "decoder":
        yield from model.decoder.children()
    else:
        yield getattr(model, part)


def offload(model: nn.Module, parts: Sequence[str], device: torch.device) -> None:
    """Leave `parts` in main memory and let their layers visit `device`; everything else moves there."""
    from accelerate import cpu_offload

    behind = [network for part in check_parts(parts) for network in networks(model, part)]
    for network in behind:
        cpu_offload(network.to("cpu"), execution_device=device)
    visitors = {id(tensor) for network in behind for tensor in (*network.parameters(), *network.buffers())}
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) not in visitors and not tensor.is_meta:  # meta: left behind before
            tensor.data = tensor.data.to(device)
