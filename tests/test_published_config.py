"""The original's configuration files ↔ ours, and the presets against the published lists of tensors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blip3o_mini.config import PRESETS, ModelConfig
from blip3o_mini.parity.manifest import published_tensors
from blip3o_mini.published import TABLE, our_name, published_name
from blip3o_mini.published_config import LIKE, from_published, rounding_of, to_published
from blip3o_mini.sdxl import SdxlDecoder

FOLDER = Path(__file__).parent / "parity"
SECTION_11 = {
    "8b": {
        "visual.": 676_550_144, "model.layers.": 6_525_621_760 - 3584, "model.embed_tokens.": 543_578_112,
        "lm_head.": 543_578_112, "model.dit.": 1_365_010_336, "model.latent_queries": 229_376,
        "model.gen_vision_tower.": 4_350_208_256,
    },
    "4b": {
        "visual.": 668_684_288, "model.layers.": 2_774_773_760 - 2048, "model.embed_tokens.": 310_616_064,
        "model.dit.": 1_362_257_824, "model.latent_queries": 131_072, "model.gen_vision_tower.": 4_350_208_256,
    },
}  # fmt: skip  # the reference counts the final norm with the layers


def manifest(name):
    return json.loads((FOLDER / f"manifest_{name}.json").read_text())


def listing(tensors):
    return {name: {"shape": list(t.shape), "dtype": str(t.dtype)[6:]} for name, t in tensors.items()}


# ------------------------------------------------------------------ presets


@pytest.mark.parametrize("name", ["4b", "8b"])
def test_presets_have_the_published_tensors(name):
    tensors = published_tensors(PRESETS[name])
    assert listing(tensors) == manifest(name)["parameters"]
    for prefix, count in SECTION_11[name].items():
        assert sum(t.numel() for key, t in tensors.items() if key.startswith(prefix)) == count, prefix


@pytest.mark.parametrize("name", ["4b", "8b"])
def test_presets_have_the_published_decoder(name):
    with torch.device("meta"):
        decoder = SdxlDecoder(PRESETS[name].decoder).bfloat16()
    for part in ("unet", "vae"):
        assert listing(getattr(decoder, part).state_dict()) == manifest("decoder")[part]


@pytest.mark.parametrize("name", ["4b", "8b"])
def test_presets_say_what_the_published_configuration_says(name):
    told = to_published(PRESETS[name])
    if name == "4b":
        told["max_window_layers"] = 70  # without meaning: windows are switched off
    assert told == manifest(name)["config"]


# ------------------------------------------------------------------ there and back


def test_every_name_has_one_place():
    for name in ("4b", "8b"):
        for theirs in manifest(name)["parameters"]:
            assert published_name(*our_name("", theirs)) == ("", theirs)
    assert len({row[2:] for row in TABLE}) == len({row[:3] for row in TABLE}) == len(TABLE)
    with pytest.raises(ValueError, match="no place for clip of the nose"):
        published_name("nose", "clip")


@pytest.mark.parametrize("name", ["4b", "8b"])
def test_a_configuration_comes_back_whole(name):
    told = manifest(name)["config"]
    config = from_published(told, {})
    assert config.name == name and to_published(config) == told
    assert to_published(ModelConfig.from_json(config.to_json())) == told
    parts = {part: getattr(config, part) for part in ("vision", "dit", "decoder")}
    assert parts == {part: getattr(PRESETS[name], part) for part in parts}
    assert replace(config.backbone, settings={}) == replace(PRESETS[name].backbone, settings={})


def test_a_configuration_may_lack_what_only_training_said():
    told = manifest("8b")["config"]
    del told["mm_projector_lr"], told["sliding_window"]
    assert to_published(from_published(told, {})) == told


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hiden_size": 8}, "unknown key 'hiden_size'; did you mean 'hidden_size'?"),
        ({"gen_poling": 8}, "did you mean 'gen_pooling'?"),
        ({"vision_config": {"dept": 32}}, "vision_config has the unknown key 'dept'; did you mean 'depth'?"),
        ({"rope_scaling": {"mrope_sections": []}}, "did you mean 'mrope_section'?"),
        ({"rope_scaling": [16, 24, 24]}, r"rope_scaling holds [16, 24, 24], not named values"),
        ({"hidden_size": "3584"}, 'hidden_size = "3584"; expected a number above 0'),
        ({"n_query": None}, "n_query = null"),
        ({"num_hidden_layers": True}, "num_hidden_layers = true; expected a number"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings = 0; expected true or false"),
        ({"gen_pooling": "early_pool2d_0"}, "gen_pooling = 'early_pool2d_0'; expected early_pool2d_4"),
        ({"torch_dtype": "bfloat61"}, 'torch_dtype = "bfloat61"; expected float32 or bfloat16 or float16'),
        ({"gen_vision_tower": "eva-clip-x"}, "'eva-clip-x', whose sizes are not known"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(change, sentence):
    shapes = {"dit": {}} if "gen_vision_tower" not in change else {"dit": dit_shapes()}
    with pytest.raises(ValueError) as caught:
        from_published(manifest("8b")["config"] | change, shapes)
    assert sentence in str(caught.value)


def dit_shapes():
    parameters = manifest("8b")["parameters"].items()
    return {our_name("", name)[1]: tuple(told["shape"]) for name, told in parameters if ".dit." in name}


def test_other_sizes_are_read_off_the_tensors():
    shapes = {"dit": dit_shapes(), "vision": {}}
    for name, told in manifest("8b")["parameters"].items():
        if name.startswith("model.gen_vision_tower"):
            shapes["vision"][our_name("", name)[1]] = tuple(told["shape"])
    told = manifest("8b")["config"] | {"gen_vision_tower": "another"}
    config = from_published(told, shapes)
    assert config.dit == PRESETS["8b"].dit
    assert config.vision == replace(PRESETS["8b"].vision, head_width=0)  # which no shape tells
    told["gen_vision_head_width"] = 112
    assert from_published(told, shapes).vision == PRESETS["8b"].vision
    assert to_published(from_published(told, shapes)) == told


@pytest.mark.parametrize(("width", "multiple"), [(1792, 256), (48, 256), (48, 32), (40, 32), (36, 1), (1792, 64)])
def test_the_feed_forward_width_is_found_again(width, multiple):
    from blip3o_mini.dit import ffn_width

    inner = ffn_width(width, multiple)
    assert ffn_width(width, rounding_of(width, inner)) == inner


@pytest.mark.parametrize("name", ["toy", "tiny"])
def test_models_without_a_published_form_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' has no published form"):
        to_published(PRESETS[name])
    with pytest.raises(ValueError, match="has no published form"):
        to_published(replace(LIKE, dit=replace(LIKE.dit, has_source=True)))
