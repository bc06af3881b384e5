"""The published decoder: the original's numbers, planted mistakes, guidance, batches, its settings."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blip3o_mini.config import PRESETS, DecoderConfig
from blip3o_mini.parity import failed
from blip3o_mini.parity.fixture import Fixture, load
from blip3o_mini.parity.pictures import build_decoder, check_run
from blip3o_mini.sdxl import SdxlDecoder, settings_of

FOLDER = Path(__file__).parent / "parity"
FEATURES = 56  # width of the features of the small fixture


@pytest.fixture(scope="module")
def fixture():
    return load(FOLDER, "decoder_tiny")


@pytest.fixture(scope="module")
def decoder(fixture):
    return build_decoder(fixture)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def swapped_rows(decoder, monkeypatch):
    """[negative, features] instead of [features, negative], told apart rightly afterwards."""
    forward = decoder.forward

    def swapped(latents, timestep, features, frames):
        return forward(latents, timestep, features.roll(len(features) // 2, 0), frames).roll(len(features) // 2, 0)

    monkeypatch.setattr(decoder, "forward", swapped)


def unscaled(name, value):
    def mistake(decoder, monkeypatch):
        scheduler = decoder.scheduler

        def wrong(steps):
            made = scheduler(steps)
            monkeypatch.setattr(type(made), name, value)
            return made

        monkeypatch.setattr(decoder, "scheduler", wrong)

    return mistake


def first_token(decoder, monkeypatch):
    """The first feature instead of the mean as pooled text."""
    forward = decoder.unet.forward

    def wrong(*inputs, added_cond_kwargs, **named):
        added = added_cond_kwargs | {"text_embeds": inputs[2][:, 0]}
        return forward(*inputs, added_cond_kwargs=added, **named)

    monkeypatch.setattr(decoder.unet, "forward", wrong)


def reversed_guidance(decoder, monkeypatch):
    guided = decoder.guided
    monkeypatch.setattr(decoder, "guided", lambda features, negative, *a, **k: guided(negative, features, *a, **k))


def other_setting(part, **values):
    def mistake(decoder, monkeypatch):
        monkeypatch.setitem(decoder.settings, part, decoder.settings[part] | values)

    return mistake


@pytest.mark.parametrize(
    ("mistake", "quantity"),
    [
        (swapped_rows, "encoder_hidden_states"),
        (unscaled("init_noise_sigma", 1.0), "init_noise_sigma"),
        (unscaled("scale_model_input", lambda self, sample, timestep: sample), "unet_input_first"),
        (first_token, "guided_noise_pred"),
        (reversed_guidance, "trajectory"),
        (other_setting("scheduler", steps_offset=0), "timesteps"),
        (other_setting("scheduler", timestep_spacing="linspace"), "timesteps"),
        (other_setting("vae", scaling_factor=0.18215), "rgb"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@torch.no_grad()
def test_a_planted_mistake_is_a_miss(fixture, decoder, monkeypatch, mistake, quantity):
    mistake(decoder, monkeypatch)
    rows = list(check_run(fixture, decoder, "steps6"))
    assert failed(rows)
    assert f"steps6.{quantity}" in [row.quantity for row in rows if row.passed is False]


@torch.no_grad()
def test_other_pictures_in_a_batch_agree_with_single_ones(decoder):
    features, noise, negative = normal(3, 64, FEATURES), normal(3, 4, 6, 4, seed=1), normal(1, 64, FEATURES, seed=2)
    together = decoder.decode(features, noise, 3, negative=negative)
    assert together.shape == (3, 3, 48, 32) and 0 <= together.min() <= together.max() <= 1
    for k in range(3):
        alone = decoder.decode(features[k : k + 1], noise[k : k + 1], 3, negative=negative)[0]
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-4)  # convolutions sum in another order


@torch.no_grad()
def test_guidance_needs_a_negative_and_does_nothing_towards_itself(decoder):
    features, noise, negative = normal(1, 64, FEATURES), normal(1, 4, 6, 4, seed=1), normal(1, 64, FEATURES, seed=2)
    plain = decoder.decode(features, noise, 2)
    assert torch.equal(plain, decoder.decode(features, noise, 2, negative=negative, guidance=1))
    same = decoder.decode(features, noise, 2, negative=features, guidance=5)
    torch.testing.assert_close(plain, same, rtol=0, atol=1e-4)
    guided = decoder.decode(features, noise, 2, negative=negative)
    assert torch.equal(guided, decoder.decode(features, noise, 2, negative=negative, guidance=3.0))
    assert (guided - plain).abs().max() > 0.01
    with pytest.raises(ValueError, match=r"guidance 2\.0 needs negative features"):
        decoder.decode(features, noise, 2, guidance=2.0)


@torch.no_grad()
def test_size_and_crop_are_told_to_the_network(decoder):
    features, noise = normal(1, 64, FEATURES), normal(1, 4, 6, 4, seed=1)
    plain = decoder.decode(features, noise, 2)
    assert torch.equal(plain, decoder.decode(features, noise, 2, original=(1024, 1024), crop=(0, 0)))
    assert not torch.equal(plain, decoder.decode(features, noise, 2, crop=(0, 512)))


@torch.no_grad()
def test_half_precision_keeps_its_numbers_in_range(decoder, fixture):
    half = build_decoder(fixture).half()
    image = half.develop(1e4 * normal(1, 4, 2, 2).half())  # far above what float16 can square
    assert half.vae.dtype == torch.float32 and half.unet.dtype == torch.float16
    assert image.isfinite().all()


@pytest.mark.parametrize("name", ["4b", "8b"])
def test_the_presets_have_the_published_size(name):
    with torch.device("meta"):
        decoder = SdxlDecoder(PRESETS[name].decoder)
    assert decoder.noise_shape == (4, 128, 128)
    assert sum(p.numel() for p in decoder.unet.parameters()) == 2_525_520_644
    assert sum(p.numel() for p in decoder.vae.parameters()) == 83_653_863


def test_the_published_values_are_those_of_the_published_files():
    """Settings as the original's files hold them (without those that only repeat diffusers' defaults)."""
    settings = json.loads((FOLDER / "decoder_tiny.json").read_text())
    ours = settings_of(PRESETS["8b"].decoder)
    rest = {"trained_betas": None, "_class_name": "EulerDiscreteScheduler"}
    assert ours["scheduler"] | rest == settings["scheduler_config"]
    same = ("scaling_factor", "force_upcast", "latent_channels", "sample_size", "layers_per_block")
    assert [ours["vae"][key] for key in same] == [settings["vae_config"][key] for key in same]
    same = ("addition_embed_type", "use_linear_projection", "up_block_types", "down_block_types")
    assert [list(ours["unet"][key]) for key in same[2:]] == [settings["unet_config"][key] for key in same[2:]]
    assert [ours["unet"][key] for key in same[:2]] == [settings["unet_config"][key] for key in same[:2]]


@pytest.mark.parametrize(
    ("part", "settings", "sentence"),
    [
        ("unet", {"cross_atention_dim": 8}, "no setting 'cross_atention_dim'; did you mean 'cross_attention_dim'?"),
        ("vae", {"scaling": 1.0}, "the decoder's vae has no setting 'scaling'"),
        ("scheduler", {"beta_star": 0.1}, "did you mean 'beta_start'?"),
        ("scheduler", {"beta_schedule": "wavy"}, "scheduler do not fit together"),
    ],
)
def test_an_unknown_setting_is_named(fixture, part, settings, sentence):
    own = {name: fixture.settings[f"{name}_config"] for name in ("unet", "vae")}
    own[part] = own.get(part, {}) | settings
    with pytest.raises(ValueError) as caught:
        SdxlDecoder(DecoderConfig("sdxl", 96, FEATURES, (16, 32, 32), 2, settings=own))
    assert sentence in str(caught.value)


def test_weights_that_do_not_fit_are_named(fixture):
    tensors = load_file(FOLDER / "decoder_tiny.safetensors")
    del tensors["unet.conv_in.bias"]
    with pytest.raises(ValueError, match=r"do not fit its unet: conv_in\.bias"):
        build_decoder(Fixture("decoder_tiny", fixture.settings, tensors))
