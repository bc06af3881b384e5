"""Features → pixels as published: a UNet of SDXL's size that denoises small latents, and SDXL's autoencoder.

    latents = noise · init_noise_sigma                                          (B, 4, H/8, W/8)
    50 Euler steps along  guess = g(negative) + guidance · (g(features) − g(negative))
    picture = vae(latents / scaling_factor)                                     (B, 3, H, W)

g reads the features twice: all of them by cross-attention, and their mean over the tokens, beside six numbers
that say how large the picture is and how it is cropped (reference section 1.5). Network, autoencoder and
scheduler are diffusers' own; their published values are written down here. Same role and call as `Decoder`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .config import DecoderConfig, did_you_mean

SIZE_CODES = 6 * 256  # six numbers about the picture's size, each as 256 sinusoids
ORIGINAL, CROP = (1024, 1024), (0, 0)  # (height, width) and (top, left) that the network is told (quirk Q25)
VAE = dict(
    in_channels=3, out_channels=3, block_out_channels=(128, 256, 512, 512), layers_per_block=2, act_fn="silu",
    latent_channels=4, norm_num_groups=32, sample_size=1024, scaling_factor=0.13025, force_upcast=True,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
)  # fmt: skip
SCHEDULER = dict(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
    prediction_type="epsilon", interpolation_type="linear", use_karras_sigmas=False,
    timestep_spacing="leading", steps_offset=1,
)  # fmt: skip
# left over from another scheduler in the published file; Euler steps have no use for them
LEFTOVER = {"clip_sample", "sample_max_value", "set_alpha_to_one", "skip_prk_steps"}

Guess = Callable[[Tensor, Tensor], Tensor]


def settings_of(config: DecoderConfig) -> dict[str, dict]:
    """Settings of diffusers' three classes: the published ones at the config's sizes, then its own `settings`."""
    vae = VAE | config.settings.get("vae", {})
    crossed = ["CrossAttnDownBlock2D"] * (len(config.channels) - 1)
    unet = dict(
        sample_size=config.image_size // shrink_of(vae), in_channels=4, out_channels=4, act_fn="silu",
        block_out_channels=config.channels, layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D", *crossed), mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=(*(name.replace("Down", "Up") for name in crossed), "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10)[: len(config.channels)],
        # footgun: despite its name, diffusers takes the number of heads here; heads are 64 channels wide
        attention_head_dim=tuple(width // 64 for width in config.channels),
        cross_attention_dim=config.feature_width, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256, addition_embed_type_num_heads=64,
        projection_class_embeddings_input_dim=config.feature_width + SIZE_CODES,
    )  # fmt: skip
    return {
        part: published | config.settings.get(part, {})
        for part, published in (("unet", unet), ("vae", vae), ("scheduler", SCHEDULER))
    }


def shrink_of(vae: dict) -> int:
    """Pixels of the picture per cell of the latents, along each side."""
    return 2 ** (len(vae["block_out_channels"]) - 1)


def make(kind: type, settings: dict, part: str):
    """One of diffusers' classes from its settings; raises ValueError naming a setting that it does not know."""
    known = inspect.signature(kind.__init__).parameters.keys() - {"self", "kwargs"}
    settings = {key: value for key, value in settings.items() if key[0] != "_" and key not in LEFTOVER}
    for key in settings:
        if key not in known:
            raise ValueError(f"the decoder's {part} has no setting {key!r}{did_you_mean(key, known)}")
    try:
        return kind(**settings)
    except (TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise ValueError(f"the settings of the decoder's {part} do not fit together: {error}") from error


class SdxlDecoder(nn.Module):
    """UNet, autoencoder and scheduler from diffusers, conditioned on features (B, Q, D)."""

    most = 4  # pictures drawn at once

    def __init__(self, config: DecoderConfig):
        super().__init__()
        from diffusers import AutoencoderKL, UNet2DConditionModel

        self.config, self.settings = config, settings_of(config)
        self.unet = make(UNet2DConditionModel, self.settings["unet"], "unet")
        self.vae = make(AutoencoderKL, self.settings["vae"], "vae")
        self.scheduler(1)  # a wrong setting is told now, not at the first picture

    def scheduler(self, steps: int):
        """A fresh Euler scheduler with its noise levels for that many steps."""
        from diffusers import EulerDiscreteScheduler

        with torch.device("cpu"):  # its tables are tiny, and needed even while the weights are on meta
            scheduler = make(EulerDiscreteScheduler, self.settings["scheduler"], "scheduler")
            scheduler.set_timesteps(steps)
        return scheduler

    @property
    def shrink(self) -> int:
        return shrink_of(self.settings["vae"])

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape of one sample's noise."""
        side = self.config.image_size // self.shrink
        return (self.settings["unet"]["in_channels"], side, side)

    def forward(self, latents: Tensor, timestep: Tensor, features: Tensor, frames: Tensor) -> Tensor:
        """Guess of the noise in scaled latents (B, 4, h, w), told features (B, Q, D) and frames (B, 6)."""
        frame = {"text_embeds": features.mean(1), "time_ids": frames}
        return self.unet(latents, timestep, features, added_cond_kwargs=frame, return_dict=False)[0]

    def guided(
        self, features: Tensor, negative: Tensor | None, guidance: float, *,
        original: tuple[int, int] = ORIGINAL, crop: tuple[int, int] = CROP,
    ) -> Guess:  # fmt: skip
        """The guess pushed away from the negative features, which may be one for all; guidance 1 needs none.

        footgun: the rows are [features, negative] here and [null, condition] in the DiT (quirk Q23).
        """
        features = features.to(self.unet.dtype)
        if guidance != 1:
            if negative is None:
                raise ValueError(f"guidance {guidance} needs negative features to move away from; or pass guidance=1")
            features = torch.cat([features, negative.to(features).expand_as(features)])

        def guess(scaled: Tensor, timestep: Tensor) -> Tensor:
            target = (scaled.shape[2] * self.shrink, scaled.shape[3] * self.shrink)
            frames = torch.tensor([*original, *crop, *target], device=scaled.device).expand(len(features), -1)
            scaled = scaled.to(features).repeat(len(features) // len(scaled), 1, 1, 1)
            out = self(scaled, timestep, features, frames)
            if guidance == 1:
                return out
            positive, away = out.chunk(2)
            return away + guidance * (positive - away)

        return guess

    def walk(self, guess: Guess, noise: Tensor, steps: int) -> Iterator[Tensor]:
        """Latents (B, 4, h, w) from pure noise to data; yield every state, so that it can be drawn."""
        scheduler = self.scheduler(steps)
        latents = noise * scheduler.init_noise_sigma
        yield latents
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)  # divided by √(sigma² + 1)
            latents = scheduler.step(guess(scaled, timestep), timestep, latents, return_dict=False)[0]
            yield latents

    def develop(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), about −1 to 1, from latents; one by one, for the autoencoder is hungry for memory."""
        if self.vae.dtype == torch.float16:
            self.vae.float()  # footgun: SDXL's autoencoder overflows in float16
        latents = latents.to(self.vae.dtype) / self.settings["vae"]["scaling_factor"]
        return torch.cat([self.vae.decode(one, return_dict=False)[0] for one in latents.split(1)])

    @torch.no_grad()
    def decode(
        self, features: Tensor, noise: Tensor, steps: int | None = None, *,
        negative: Tensor | None = None, guidance: float | None = None, progress: bool = False, **frame,
    ) -> Tensor:  # fmt: skip
        """Images (B, 3, H, W) in [0, 1] from features (B, Q, D) and noise (B, *noise_shape).

        negative: features (1 or B, Q, D) to move away from; without them there is no guidance. frame: the
        original (height, width) and crop (top, left) that the network is told, 1024² and uncropped as published.
        """
        if guidance is None:
            guidance = 1.0 if negative is None else self.config.guidance
        steps = steps or self.config.steps
        walk = self.walk(self.guided(features, negative, guidance, **frame), noise, steps)
        *_, latents = tqdm(walk, total=steps + 1, desc="picture", leave=False, disable=not progress)
        return (self.develop(latents).float() / 2 + 0.5).clamp(0, 1)
