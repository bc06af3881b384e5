"""The published decoder against the original's: every step from noise to latents, then the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..config import DecoderConfig
from ..sdxl import CROP, ORIGINAL, SdxlDecoder
from .fixture import EXACT, GREY_LEVELS, LATENTS, PICTURE, TIMESTEP, Fixture, Row


def build_decoder(fixture: Fixture) -> SdxlDecoder:
    """Our decoder with the settings and weights of a `decoder_` fixture."""
    unet = fixture.setting("unet_config")
    settings = {"unet": unet, "vae": fixture.setting("vae_config")}
    settings["scheduler"] = fixture.setting("scheduler_config", default={})
    sizes = {"image_size": fixture.setting("height", default=1024), "layers_per_block": 2}
    width, channels = (fixture.setting("unet_config", key) for key in ("cross_attention_dim", "block_out_channels"))
    config = DecoderConfig("sdxl", feature_width=width, channels=tuple(channels), settings=settings, **sizes)
    decoder = SdxlDecoder(config).eval()
    for part in ("unet", "vae"):
        weights = {key: fixture[f"{part}.{key}"] for key in fixture.names(rf"{part}\.(.+)")}
        network = getattr(decoder, part)
        wanted = {key for key in network.state_dict() if part == "unet" or not key.startswith(("encoder.", "quant_"))}
        try:
            different = network.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            problem = " ".join(str(error).split())
            raise ValueError(f"the weights in {fixture.name} do not fit its sizes: {problem}") from error
        if wrong := sorted({*different.missing_keys} & wanted | {*different.unexpected_keys}):
            raise ValueError(f"the weights in {fixture.name} do not fit its {part}: {', '.join(wrong[:4])}")
    return decoder


@torch.no_grad()
def check_decoder(fixture: Fixture, folder: Path) -> list[Row]:
    """Every run's schedule, inputs of the network, guesses and states, and its picture."""
    runs = fixture.names(r"(\w+)\.(?:trajectory|rgb)")
    if not runs:
        raise ValueError(f"{fixture.name}.safetensors holds no *.trajectory or *.rgb; it is damaged")
    decoder = build_decoder(fixture)
    return [row for run in runs for row in check_run(fixture, decoder, run)]


def check_run(fixture: Fixture, decoder: SdxlDecoder, run: str) -> Iterator[Row]:
    def setting(key: str, default: object):
        return fixture.setting(run, key, default=fixture.setting(key, default=default))

    theirs = fixture[f"{run}.trajectory"]
    steps = int(setting("steps", len(theirs) - 1))
    guidance = max(1.0, float(setting("guidance_scale", 3.0)))  # the original guides only above 1
    features = fixture.first(f"{run}.cond_features", "cond_features")
    negative = fixture.first(f"{run}.uncond_features", "uncond_features") if guidance > 1 else None
    frame = {"original": tuple(setting("original_size", ORIGINAL)), "crop": tuple(setting("crop", CROP))}
    scheduler, guess = decoder.scheduler(steps), decoder.guided(features, negative, guidance, **frame)
    guesses = []

    def noted(scaled: Tensor, timestep: Tensor) -> Tensor:
        guesses.append(guess(scaled, timestep))
        return guesses[-1]

    # the fixture starts with scaled noise; its own factor, where it is stored, leads back to the noise
    scale = fixture.tensors.get(f"{run}.init_noise_sigma", scheduler.init_noise_sigma)
    with FirstCall(decoder.unet) as first:
        states = list(decoder.walk(noted, theirs[0] / scale, steps))
    latents = states[-1] / decoder.settings["vae"]["scaling_factor"]
    picture = decoder.develop(states[-1])
    for limit, ours in (
        (EXACT, {"sigmas": scheduler.sigmas, "init_noise_sigma": torch.as_tensor(scheduler.init_noise_sigma)}),
        (TIMESTEP, {"timesteps": scheduler.timesteps}),
        (EXACT, {"time_ids": first.frames.flatten(), "text_embeds": first.pooled}),
        (EXACT, {"encoder_hidden_states": first.features, "unet_input_first": first.latents}),
        (LATENTS, {"unet_output_first": first.output, "guided_noise_pred": torch.stack(guesses)}),
        (LATENTS, {"trajectory": torch.stack(states), "vae_input": latents}),
        (PICTURE, {"vae_output": picture}),
    ):
        yield from fixture.compare_keys({f"{run}.{key}": tensor for key, tensor in ours.items()}, limit)
    if (key := f"{run}.rgb") in fixture.tensors:
        grey = ((picture / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
        yield fixture.compare(key, grey.reshape(fixture[key].shape), fixture[key].float(), GREY_LEVELS)


class FirstCall:
    """What the UNet is given and returns the first time it is called."""

    def __init__(self, unet: torch.nn.Module):
        self.unet, self.output = unet, None

    def __enter__(self) -> FirstCall:
        self.hook = self.unet.register_forward_hook(self.keep, with_kwargs=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.hook.remove()

    def keep(self, unet: torch.nn.Module, inputs: tuple, named: dict, output: tuple) -> None:
        if self.output is None:
            self.latents, _, self.features, self.output = *inputs, output[0]
            self.pooled = named["added_cond_kwargs"]["text_embeds"]
            self.frames = named["added_cond_kwargs"]["time_ids"]
