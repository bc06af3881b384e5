"""Checkpoints carried from the original's format to ours and back: bit for bit, wholly or not at all."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from published_folder import change, publish, read_shards
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_published import tiny_published

from blip3o_mini import checkpoint, conversion
from blip3o_mini.cli import main
from blip3o_mini.conversion import convert
from blip3o_mini.model import Blip3oMini

FIXTURES = Path(__file__).parent / "parity"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "folder"
    publish(folder)
    return folder


def tensors(folder):
    """Every tensor of a folder, with its place."""
    return {
        (path.parent.name if "diffusion-decoder" in path.parts else "", name): tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one, other):
    assert one.keys() == other.keys()
    return all(t.dtype == other[key].dtype and torch.equal(t, other[key]) for key, t in one.items())


def others(folder):
    """Every other file but the index, with its text."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".safetensors" and "index" not in path.name
    }


def test_there_and_back_changes_no_bit(folder, tmp_path):
    convert(folder, tmp_path / "ours")
    names = {path.name for path in (tmp_path / "ours").glob("*.safetensors")}
    assert names == {f"{part}.safetensors" for part in checkpoint.PARTS}
    convert(tmp_path / "ours", tmp_path / "theirs", shard=100_000)
    assert same(tensors(folder), tensors(tmp_path / "theirs"))
    theirs, back = others(folder), others(tmp_path / "theirs")
    assert theirs.keys() == back.keys()
    for name in theirs:
        if name.startswith("diffusion-decoder"):  # diffusers ends its files otherwise
            assert json.loads(theirs[name]) == json.loads(back[name])
        else:
            assert theirs[name] == back[name]


@pytest.mark.parametrize("name", ["ar_checkpoint_tiny", "ar_checkpoint_tiny_tied"])
def test_the_originals_own_folders_come_back_whole(name, tmp_path):
    convert(FIXTURES / name, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs")
    assert same(tensors(FIXTURES / name), tensors(tmp_path / "theirs"))
    assert others(FIXTURES / name) == others(tmp_path / "theirs")


def test_mixed_types_stay_as_they_are(tmp_path):
    publish(tmp_path / "theirs")
    change(tmp_path / "theirs", model__latent_queries=torch.full((1, 4, 32), 0.1).bfloat16())
    convert(tmp_path / "theirs", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back")
    assert same(tensors(tmp_path / "theirs"), tensors(tmp_path / "back"))


def test_a_model_of_ours_is_published_and_read_again(tmp_path):
    model = tiny_published(is_tied=True)
    model.save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", shard=200_000)
    again = Blip3oMini.from_pretrained(tmp_path / "theirs", device="cpu")
    assert "lm_head.weight" not in read_shards(tmp_path / "theirs")
    options = {"steps": 2, "decoder_steps": 2}
    assert model.generate("a star", **options)[0].tobytes() == again.generate("a star", **options)[0].tobytes()
    assert model.answer(None, "who?") == again.answer(None, "who?")


@pytest.mark.parametrize("most", [1, 50_000, 10**9])
def test_shards_hold_what_their_index_says(folder, tmp_path, most):
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", shard=most)
    files = sorted((tmp_path / "theirs").glob("*.safetensors"))
    if most == 10**9:
        assert [path.name for path in files] == ["model.safetensors"]
        return
    index = json.loads((tmp_path / "theirs" / "model.safetensors.index.json").read_text())
    held = {}
    for path in files:
        with safe_open(path, "pt") as file:
            held |= dict.fromkeys(file.keys(), path.name)
        sizes = [tensor.nbytes for tensor in load_file(path).values()]
        assert sum(sizes) <= most or len(sizes) == 1
    assert held == index["weight_map"] and len(files) > 1
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in read_shards(tmp_path / "theirs").values())
    n = len(files)
    assert [path.name for path in files] == [f"model-{k:05}-of-{n:05}.safetensors" for k in range(1, n + 1)]


def test_decoder_weights_say_their_type_in_their_name(tmp_path):
    tiny_published().bfloat16().save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs")
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        place = tmp_path / "theirs" / "diffusion-decoder" / part
        read = kind.from_pretrained(place, variant="bf16", torch_dtype=torch.bfloat16)
        (path,) = place.glob("*.bf16.safetensors")
        assert same(load_file(path), {name: t.detach() for name, t in read.state_dict().items()})


# ------------------------------------------------------------------ what goes wrong


def test_what_is_there_is_left_alone(folder, tmp_path):
    (tmp_path / "out").mkdir()
    convert(folder, tmp_path / "out")  # empty: taken
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="out is there already and not empty"):
        convert(folder, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_not_converted_into_itself(folder):
    for place in (folder, folder / "ours"):
        with pytest.raises(ValueError, match="which is read; choose a folder beside it"):
            convert(folder, place)


@pytest.mark.parametrize("direction", ["ours", "theirs"])
def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch, direction):
    if direction == "theirs":
        convert(folder, tmp_path / "ours")
    before, calls, write = sorted(tmp_path.rglob("*")), [], checkpoint.write_tensors

    def full(path, *rest):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *rest)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        convert(folder if direction == "ours" else tmp_path / "ours", tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_checkpoint_is_not_converted(tmp_path):
    publish(tmp_path / "theirs")
    change(tmp_path / "theirs", model__norm__weight=None)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is missing"):
        convert(tmp_path / "theirs", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_the_toy_has_no_published_form(tmp_path):
    with pytest.raises(ValueError, match="has no published form"):
        convert("toy", tmp_path / "out")


def test_the_command_says_what_it_made(folder, tmp_path, capsys):
    assert main(["convert", str(folder), "--out", str(tmp_path / "ours")]) == 0
    assert "million weights in our format" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "ours"), "--out", str(tmp_path / "t"), "--shard-size", "0.001"]) == 0
    assert "million weights in the published format" in capsys.readouterr().out
    assert conversion.SHARD == 5_000_000_000
    told = []
    for form in ("ours", "t"):
        assert main(["info", "--checkpoint", str(tmp_path / form)]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and "backbone" in told[0]
