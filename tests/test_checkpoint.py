"""Checkpoints: a full disk or a crash leaves the old file, damage is named, nothing is ever unpickled."""

import ast
import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import blip3o_mini
from blip3o_mini import checkpoint

OLD, NEW = {"a": torch.zeros(3)}, {"a": torch.ones(3)}


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(tensors, path, metadata=None):
    Path(path).write_bytes(b"half")
    full_disk()


@pytest.mark.parametrize(
    "place, name, substitute",
    [(safetensors.torch, "save_file", half_written), (os, "fsync", full_disk), (os, "replace", full_disk)],
)
def test_a_full_disk_leaves_the_old_tensors(tmp_path, monkeypatch, place, name, substitute):
    path = tmp_path / "dit.safetensors"
    checkpoint.write_tensors(path, OLD, {"step": "1"})
    monkeypatch.setattr(place, name, substitute)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_tensors(path, NEW, {"step": "2"})
    monkeypatch.undo()
    tensors, metadata = checkpoint.read_tensors(path)
    assert torch.equal(tensors["a"], OLD["a"]) and metadata == {"step": "1"}
    assert list(tmp_path.iterdir()) == [path]  # no half file stays behind


def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    checkpoint.write_text(path, "old")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.write_tensors(path, {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}, {"k": "v"})
    tensors, metadata = checkpoint.read_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3).T) and tensors["b"] == 3
    assert metadata == {"k": "v"}


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = tmp_path / "decoder.safetensors"
    checkpoint.write_tensors(path, OLD)
    path.write_bytes(path.read_bytes()[:kept])
    for read in (checkpoint.read_tensors, checkpoint.check_file):
        with pytest.raises(ValueError, match=r"decoder\.safetensors is damaged"):
            read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dit\.safetensors is missing"):
        checkpoint.read_tensors(tmp_path / "dit.safetensors")


def test_a_foreign_file_is_told_apart_and_changes_nothing(tmp_path):
    part = nn.Linear(2, 3)
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    checkpoint.write_tensors(tmp_path / "dit.safetensors", {"weight": torch.ones(2, 2), "other": torch.ones(1)})
    with pytest.raises(ValueError) as caught:
        checkpoint.load_part(part, tmp_path, "dit")
    for problem in ("dit.safetensors", "bias is missing", "other is unexpected", "(2, 2), expected (3, 2)"):
        assert problem in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in part.state_dict().items())


def test_a_tied_tensor_is_saved_once_and_stays_tied(tiny_model, tmp_path):
    checkpoint.save_part(tiny_model.backbone, tmp_path, "backbone")
    tensors, _ = checkpoint.read_tensors(tmp_path / "backbone.safetensors")
    assert sum("embed_tokens" in name or "lm_head" in name for name in tensors) == 1
    checkpoint.load_part(tiny_model.backbone, tmp_path, "backbone")  # its own weights
    language = tiny_model.backbone.language
    assert language.lm_head.weight is language.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["nowhere", "a/b/c"])
def test_no_folder_is_told(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint folder {name}"):
        checkpoint.find(name)
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        checkpoint.find(tmp_path)


@pytest.mark.parametrize("name", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="choose"):
        checkpoint.choose_device(name)
    assert checkpoint.choose_device("cpu")[0].type == "cpu"


@pytest.mark.parametrize("path", sorted(Path(blip3o_mini.__file__).parent.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_is_unpickled(path):
    """A pickle runs whatever its author wrote: the package neither imports one nor loads torch's."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "joblib", "cloudpickle", "shelve"} & set(modules)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load")
