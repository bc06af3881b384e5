"""Checkpoints in the original's format: they load, compute, and are saved and loaded again; bad ones are refused."""

import json
import logging
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_folder import change, change_config, publish, read_shards, write_shards
from safetensors.torch import load_file, save_file
from tiny_published import tiny_config, tiny_published, tiny_tokenizer

from blip3o_mini import memory, tensorfile
from blip3o_mini.checkpoint import move, unique_tensors
from blip3o_mini.loading import open_source
from blip3o_mini.model import Blip3oMini

FOLDER = Path(__file__).parent / "parity"
DRAWING = {"steps": 2, "decoder_steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A published folder and the model it was made from."""
    folder = tmp_path_factory.mktemp("published") / "folder"
    return folder, publish(folder)


@pytest.fixture
def folder(written, tmp_path):
    """A published folder of one's own, to be damaged."""
    return Path(shutil.copytree(written[0], tmp_path / "folder"))


def read(folder, **options):
    return Blip3oMini.from_pretrained(folder, device="cpu", **options)


def tensors_of(model):
    return {f"{part}.{name}": t for part in model.parts for name, t in unique_tensors(getattr(model, part)).items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(t.dtype == other[name].dtype and torch.equal(t, other[name]) for name, t in one.items())


def does_the_same(one, other):
    """Both draw, answer and see alike."""
    (picture,), (again,) = (m.generate("a red circle", **DRAWING) for m in (one, other))
    assert np.array_equal(picture, again)
    assert one.answer(picture, "what is it?") == other.answer(again, "what is it?")
    (shown,), (too,) = (m.reconstruct([picture], decoder_steps=2) for m in (one, other))
    assert np.array_equal(shown, too)
    return True


# ------------------------------------------------------------------ it loads


def test_a_published_folder_does_what_its_model_does(written):
    folder, model = written
    loaded = read(folder)
    assert same(tensors_of(loaded), tensors_of(model))
    assert not loaded.training and loaded.dit.layers[0].gate.requires_grad
    assert does_the_same(loaded, model)


def test_saved_and_loaded_again_it_is_the_same(written, tmp_path):
    loaded = read(written[0])
    loaded.save_pretrained(tmp_path)
    again = read(tmp_path)
    assert same(tensors_of(loaded), tensors_of(again)) and again.config == loaded.config
    assert does_the_same(loaded, again)


@pytest.mark.parametrize("has_head", [False, True])
def test_a_tied_head_may_be_stored_or_not(tmp_path, has_head):
    model = publish(tmp_path, tiny_published(is_tied=True), has_head=has_head)
    loaded = read(tmp_path)
    language = loaded.backbone.language
    assert language.lm_head.weight is language.get_input_embeddings().weight
    assert loaded.parameter_counts() == model.parameter_counts()
    assert loaded.answer(None, "who?") == model.answer(None, "who?")


def test_a_missing_head_that_is_not_tied_is_refused(folder):
    change(folder, lm_head__weight=None)
    with pytest.raises(ValueError, match=r"lm_head\.weight is missing"):
        read(folder)


def test_unused_tensors_are_left_out_with_a_line(folder, caplog):
    extra = {f"model.vae.decoder.conv_{k}.weight": torch.ones(2) for k in range(12)}
    write_shards(folder, read_shards(folder) | extra)
    with caplog.at_level(logging.WARNING):
        read(folder)
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "12 tensors" in line and "model.vae.decoder.conv_0.weight" in line and "and 4 more" in line


def test_a_single_file_needs_no_index(folder):
    tensors = read_shards(folder)
    for path in [*folder.glob("model-*"), folder / "model.safetensors.index.json"]:
        path.unlink()
    save_file(tensors, folder / "model.safetensors")
    assert same(tensors_of(read(folder)), tensors_of(tiny_published()))


@pytest.mark.parametrize("name", ["ar_checkpoint_tiny", "ar_checkpoint_tiny_tied"])
@torch.no_grad()
def test_a_folder_without_words_and_decoder_computes_what_the_original_did(name, tmp_path, caplog):
    numbers = load_file(FOLDER / f"{name.replace('checkpoint', 'condition')}.safetensors")
    model = read(FOLDER / name)
    assert "holds no decoder" in caplog.text
    start = torch.tensor([[model.chat_tokens.start_of_image]])
    ids = torch.cat([numbers["infer_text.input_ids"], start], dim=1)
    condition = model.backbone.condition(ids, torch.ones_like(ids))
    torch.testing.assert_close(condition, numbers["infer_text.z_latents"], rtol=0, atol=3e-5)
    noise = numbers["infer_text.initial_noise"].flatten(2).transpose(1, 2)
    features = model.sample(condition, noise, steps=30, guidance_scale=3.0)
    torch.testing.assert_close(features, numbers["infer_text.clip_features"], rtol=0, atol=1e-4)
    model.save_pretrained(tmp_path)
    assert torch.equal(read(tmp_path).backbone.condition(ids, torch.ones_like(ids)), condition)
    for asked, says in (
        (lambda: model.draw([], steps=1), "holds no decoder"),
        (lambda: model.answer(None, "who?"), "no tokenizer files"),
        (lambda: model.vision, "add gen_vision_head_width"),
    ):
        with pytest.raises(ValueError, match=says):
            asked()


def test_an_absent_image_tower_is_missed_only_where_it_is_needed(folder, tmp_path):
    read(folder).save_pretrained(tmp_path / "ours")
    (tmp_path / "ours" / "vision.safetensors").unlink()
    model = read(tmp_path / "ours")
    assert np.array_equal(*(m.generate("a star", **DRAWING)[0] for m in (model, read(folder))))
    assert "vision" not in model.parameter_counts()
    with pytest.raises(ValueError, match="holds no image tower, which pictures → features need"):
        model.encode_images(model.generate("a star", **DRAWING))
    change(folder, **dict.fromkeys(name for name in read_shards(folder) if "gen_vision_tower" in name))
    with pytest.raises(ValueError, match="'eva-clip-tiny', whose sizes are not known"):  # the published one's are
        read(folder)


def test_words_and_merges_apart_are_a_tokenizer_too(folder):
    whole = read(folder).tokenizer
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    apart = read(folder).chat_tokens
    ids = apart.words(" red circle")
    assert ids and apart.decode(ids) == "red circle"
    assert ids == whole("red circle", add_special_tokens=False).input_ids  # ours begins every text with a blank


# ------------------------------------------------------------------ types of numbers


def test_a_type_is_chosen_once(folder):
    half = read(folder, dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16} == {p.dtype for p in half.vision.parameters()}
    moved = move(tiny_published(), torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for p in moved.parameters()} == {torch.bfloat16}
    tables = {name: table for name, table in tiny_published().named_buffers() if "vision" not in name}
    for model in (half, moved):  # rotary frequencies stay exact
        assert tables and all(torch.equal(dict(model.named_buffers())[name], table) for name, table in tables.items())
    with pytest.raises(ValueError, match="weights cannot be int8; choose float32, bfloat16 or float16"):
        read(folder, dtype="int8")
    with pytest.raises(ValueError, match=r"weights cannot be torch\.float64"):
        read(folder, dtype=torch.float64)


def test_a_tensor_of_another_type_needs_a_word(folder):
    queries = read_shards(folder)["model.latent_queries"]
    change(folder, model__latent_queries=queries.half())
    with pytest.raises(ValueError, match=r"says float32, but model\.latent_queries is float16; choose a dtype"):
        read(folder)
    assert torch.equal(read(folder, dtype=torch.float32).backbone.queries, queries.half().float())


# ------------------------------------------------------------------ what is refused


def first_shard(folder):
    return folder / "model-00001-of-00003.safetensors"


def missing_shard(folder):
    first_shard(folder).unlink()


def missing_index(folder):
    (folder / "model.safetensors.index.json").unlink()


def damaged_index(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}')


def wandering_index(folder):
    index = {"weight_map": {"lm_head.weight": "../model-00001-of-00003.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def vain_index(folder):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.bias"] = first_shard(folder).name
    path.write_text(json.dumps(index))


def truncated_shard(folder):
    path = first_shard(folder)
    path.write_bytes(path.read_bytes()[:-100])


def empty_shard(folder):
    first_shard(folder).write_bytes(b"")


class Trap:
    """Does harm when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def pickled_shard(folder):
    first_shard(folder).write_bytes(pickle.dumps(Trap()))


def zipped_shard(folder):
    torch.save({"weight": torch.ones(1)}, first_shard(folder))


def pickled_folder(folder):
    for path in [*folder.glob("model*")]:
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))


def pickled_decoder(folder):
    (path,) = (folder / "diffusion-decoder" / "vae").glob("*.safetensors")
    path.rename(path.with_suffix(".bin"))


def no_weights(folder):
    for path in [*folder.glob("model*")]:
        path.unlink()


def whole_numbers(folder):
    change(folder, model__norm__weight=torch.ones(32, dtype=torch.int32))


def other_shape(folder):
    change(folder, model__norm__weight=torch.ones(31))


def missing_tensor(folder):
    change(folder, model__dit__model__layers__1__gate=None)


def foreign_tensor(folder):
    change(folder, model__mm_projector__weight=torch.ones(1), other=torch.ones(1))


def missing_in_decoder(folder):
    (path,) = (folder / "diffusion-decoder" / "unet").glob("*.safetensors")
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path)


def two_variants(folder):
    (path,) = (folder / "diffusion-decoder" / "unet").glob("*.safetensors")
    shutil.copy(path, path.with_name("diffusion_pytorch_model.safetensors"))


def unknown_key(folder):
    change_config(folder, hiden_size=32)


def unknown_decoder_key(folder):
    path = folder / "diffusion-decoder" / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_atention_dim": 8}))


def other_model(folder):
    change_config(folder, model_type="llama")


def damaged_config(folder):
    (folder / "config.json").write_text('{"model_type": "blip3o_qwen"')


def missing_decoder_config(folder):
    (folder / "diffusion-decoder" / "scheduler" / "scheduler_config.json").unlink()


def large_id(folder):
    change_config(folder, pad_token_id=151_643)


BAD = [
    (missing_shard, "model-00001-of-00003.safetensors: missing in"),
    (missing_index, "holds 3 files model*.safetensors and no index of them"),
    (damaged_index, "model.safetensors.index.json is damaged"),
    (wandering_index, "names the file '../model-00001-of-00003.safetensors', which is no plain file name"),
    (vain_index, "lists tensors that its files do not hold: model.norm.bias"),
    (truncated_shard, "model-00001-of-00003.safetensors is damaged or cut off"),
    (empty_shard, "model-00001-of-00003.safetensors is damaged or cut off"),
    (pickled_shard, "model-00001-of-00003.safetensors is a pickle, not safetensors"),
    (zipped_shard, "model-00001-of-00003.safetensors is a pickle, not safetensors"),
    (pickled_folder, "pytorch_model.bin is a pickle, not safetensors"),
    (pickled_decoder, "diffusion_pytorch_model.bf16.bin is a pickle, not safetensors"),
    (no_weights, "holds no weights of the backbone and dit"),
    (whole_numbers, "model.norm.weight is int32, expected float32, bfloat16, float16"),
    (other_shape, "model.norm.weight has the shape (31,), expected (32,)"),
    (missing_tensor, "model.dit.model.layers.1.gate is missing"),
    (foreign_tensor, "other is unexpected; model.mm_projector.weight is unexpected"),
    (missing_in_decoder, "diffusion-decoder/unet/conv_in.bias is missing"),
    (two_variants, "holds 2 files diffusion_pytorch_model*.safetensors and no index"),
    (unknown_key, "unknown key 'hiden_size'; did you mean 'hidden_size'?"),
    (unknown_decoder_key, "no setting 'cross_atention_dim'; did you mean 'cross_attention_dim'?"),
    (other_model, "config.json is of a 'llama' model"),
    (damaged_config, "config.json is damaged"),
    (missing_decoder_config, "scheduler_config.json cannot be read"),
    (large_id, "pad_token_id = 151643, but the vocabulary has 640 words"),
]


@pytest.mark.parametrize(("damage", "sentence"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_folder_is_one_sentence(folder, damage, sentence):
    damage(folder)
    with pytest.raises(ValueError) as caught:
        read(folder)
    assert sentence in str(caught.value)


def test_a_long_list_is_cut(folder):
    change(folder, **{name: None for name in read_shards(folder) if ".dit." in name and "norm" in name})
    with pytest.raises(ValueError, match=r"is missing; and \d+ more$") as caught:
        read(folder)
    assert str(caught.value).count(" is missing") == tensorfile.SHOWN


def test_an_unknown_key_in_our_own_format_is_named(written, tmp_path):
    read(written[0]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"kv_heads"', '"kv_head"', 1))
    with pytest.raises(ValueError, match=r"backbone has the unknown key 'kv_head'; did you mean 'kv_heads'\?"):
        read(tmp_path)


# ------------------------------------------------------------------ memory


def test_too_little_memory_is_told_before_anything_is_read(written, monkeypatch):
    folder, model = written
    count = sum(p.numel() for part in ("backbone", "dit", "decoder") for p in getattr(model, part).parameters())
    monkeypatch.setattr(tensorfile.Stored, "read", lambda self: pytest.fail("a weight was read"))
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * count)
    with pytest.raises(ValueError, match=r"need \d\.\d MB of memory but cpu has .* free; would fit: bfloat16 on cpu"):
        read(folder)
    monkeypatch.setattr(memory, "free_memory", lambda device: count)
    with pytest.raises(ValueError, match="nothing here is large enough; take a smaller model"):
        read(folder, dtype="bfloat16")


def test_a_container_may_have_less_than_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.container_memory() == []
    for name, text in (("max", "1000"), ("current", "900"), ("stat", "anon 500\ninactive_file 300\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.container_memory() == [400] and memory.free_memory(torch.device("cpu")) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.container_memory() == []


MEASURE = """
import sys
from pathlib import Path

import torch

from blip3o_mini.model import Blip3oMini


def status(key):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key + ":")]
    return 1024 * int(line.split()[1])


Blip3oMini.from_pretrained(sys.argv[1], device="cpu")  # whatever libraries load and keep, they have now
Path("/proc/self/clear_refs").write_text("5")  # forget the peak
before = status("VmRSS")
model = Blip3oMini.from_pretrained(sys.argv[2], device="cpu")
weights = sum(p.nbytes for p in model.parameters())
print(weights, status("VmHWM") - before)
"""


def test_loading_needs_little_more_memory_than_the_weights(tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells a process's peak")
    config = tiny_config()
    large = replace(config, dit=replace(config.dit, width=512, heads=8, kv_heads=8, layers=12))
    for name, sizes in (("small", config), ("large", large)):
        publish(tmp_path / name, Blip3oMini(sizes, tiny_tokenizer()))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    weights, peak = map(int, done.stdout.split())
    assert weights > 200e6 and peak < 1.1 * weights


def test_nothing_is_read_to_know_a_folder(written, monkeypatch):
    monkeypatch.setattr(tensorfile.Stored, "read", lambda self: pytest.fail("a weight was read"))
    source = open_source(written[0])
    assert source.is_theirs and set(source.tensors) == {"vision", "backbone", "dit", "decoder"}
