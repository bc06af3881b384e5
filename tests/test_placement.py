"""Parts left in main memory: the same pictures and words, nothing but visitors on the device."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_published import tiny_published

from blip3o_mini.placement import ORDER, ROOM, choose, offload

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
SIZES = {"vision": 9e9, "backbone": 16e9, "dit": 3e9, "decoder": 5e9}


def made(model):
    return [
        np.asarray(model.generate("a red circle")[0]), np.asarray(model.edit(PICTURE, "make it blue")[0]),
        np.asarray(model.reconstruct([PICTURE])[0]), model.answer(PICTURE, "what?"), model.answer(None, "why?"),
    ]  # fmt: skip


@pytest.mark.parametrize("parts", [("backbone",), ("vision", "dit"), ORDER])
def test_offloaded_parts_compute_the_same(parts):
    expected, model = made(tiny_published()), tiny_published()
    model.vision  # noqa: B018  made before it is offloaded
    offload(model, parts, torch.device("cpu"))
    places = {name: p.device.type for name, p in model.named_parameters()}
    for part, prefix in (("backbone", "backbone.language"), ("dit", "dit"), ("vision", "vision_part")):
        kind = "meta" if part in parts else "cpu"  # accelerate keeps the weights aside and shapes in their place
        assert {place for name, place in places.items() if name.startswith(prefix)} == {kind}
    assert places["backbone.queries"] == "cpu"
    for ours, theirs in zip(made(model), expected):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("room", "behind"),
    [(80, ()), (35, ("vision",)), (24, ("vision", "backbone")), (8.1, ("vision", "backbone", "dit")), (4, ORDER)],
)
def test_what_is_called_seldom_stays_behind_first(room, behind):
    assert choose(SIZES, room * 1e9) == behind


def test_parts_that_are_not_used_need_no_place():
    assert choose({"backbone": 16e9, "dit": 3e9, "decoder": 5e9}, 28e9) == ()


def test_too_little_is_refused():
    with pytest.raises(ValueError, match=r"1.0 GB are too little"):
        choose(SIZES, ROOM - 2e9)


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="no part 'unet'"):
        offload(tiny_published(), ["unet"], torch.device("cpu"))
