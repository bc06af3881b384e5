"""Parts left in main memory: the same pictures and words, nothing but visitors on the device."""

import numpy as np
import pytest
import torch
from PIL import Image
from published_folder import publish
from tiny_published import tiny_published

from blip3o_mini.model import Blip3oMini
from blip3o_mini.placement import ORDER, ROOM, choose, offload

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
SIZES = {"vision": 9e9, "backbone": 16e9, "dit": 3e9, "decoder": 5e9}


def made(model):
    steps = {"steps": 2, "decoder_steps": 2}  # the published format does not say how many
    drawn = model.generate("a red circle", **steps) + model.edit(PICTURE, "make it blue", **steps)
    drawn += model.reconstruct([PICTURE], decoder_steps=2)
    return [*map(np.asarray, drawn), model.answer(PICTURE, "what?"), model.answer(None, "why?")]


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


def test_a_checkpoint_is_loaded_with_parts_left_behind(tmp_path):
    expected = made(publish(tmp_path / "published"))
    read = lambda **options: Blip3oMini.from_pretrained(tmp_path / "published", device="cpu", **options)  # noqa: E731
    model = read(offload=("vision", "backbone"))
    for ours, theirs in zip(made(model), expected):
        assert ours == theirs if isinstance(ours, str) else np.abs(ours.astype(int) - theirs).max() <= 1
    kinds = {name.split(".")[0]: p.device.type for name, p in model.named_parameters() if "queries" not in name}
    assert kinds == {"backbone": "meta", "dit": "cpu", "decoder": "cpu", "vision_part": "meta"}
    assert read(offload="auto").offloaded == ()  # main memory is where they would stay anyway
    with pytest.raises(ValueError, match="no part 'unet'"):
        read(offload="unet")
    with pytest.raises(ValueError, match="is small"):
        Blip3oMini.from_pretrained("toy", offload="auto")
