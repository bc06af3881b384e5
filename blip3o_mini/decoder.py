"""Features → pixels: a conditional diffusion UNet that draws the picture the features describe.

The small decoder works on folded pixels: each fold×fold square becomes one cell with 3·fold² channels,
so the UNet sees a small image. It walks the same straight path as the DiT,
    x = (1 − sigma) · image + sigma · noise,
but guesses the clean image, which is far simpler than the noise, and follows
    velocity = noise − image = (x − guess) / sigma.
It reads the features twice: by cross-attention (as the published SDXL-size UNet does) and, because
they form a grid, as extra input channels laid out where they belong. Lesson 05.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import flow
from .config import DecoderConfig


def fold(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) → (B, 3·size², H/size, W/size)."""
    return F.pixel_unshuffle(images, size)


def unfold(folded: Tensor, size: int) -> Tensor:
    """The inverse of `fold`."""
    return F.pixel_shuffle(folded, size)


class Decoder(nn.Module):
    """UNet2DConditionModel from diffusers on folded pixels, conditioned on features (B, Q, D)."""

    most = 64  # pictures drawn at once

    def __init__(self, config: DecoderConfig):
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.config = config
        pixels = 3 * config.fold**2
        self.unet = UNet2DConditionModel(
            sample_size=config.image_size // config.fold,
            in_channels=pixels + config.feature_width, out_channels=pixels,
            block_out_channels=config.channels, layers_per_block=config.layers_per_block,
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (len(config.channels) - 1)),
            up_block_types=(*["CrossAttnUpBlock2D"] * (len(config.channels) - 1), "UpBlock2D"),
            cross_attention_dim=config.feature_width, norm_num_groups=16,
            # footgun: despite its name, diffusers takes the number of heads here; heads are 32 channels wide
            attention_head_dim=tuple(width // 32 for width in config.channels),
        )  # fmt: skip

    def forward(self, folded: Tensor, timestep: Tensor, features: Tensor) -> Tensor:
        """Guess of the clean folded image (B, C, h, w), from a noisy one at timestep = 1000 · sigma (B,)."""
        side = math.isqrt(features.shape[1])
        grid = features.transpose(1, 2).unflatten(2, (side, side))  # (B, D, side, side)
        layout = F.interpolate(grid, size=folded.shape[2:], mode="nearest")
        return self.unet(
            torch.cat([folded, layout], dim=1), timestep, encoder_hidden_states=features, return_dict=False
        )[0]

    def loss(self, images: Tensor, features: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the guess on images (B, 3, H, W) in [0, 1], all noise levels alike.

        The features get a little noise of random strength: the DiT's features are never exact, and the
        decoder has to read them all the same.
        """
        image = fold(2 * images - 1, self.config.fold)  # (B, C, h, w)
        noise = flow.sample_noise(image, generator)
        sigma = flow.sample_sigma(len(image), generator, shift=0.5).to(image)
        strength = 0.3 * torch.rand((len(image), 1, 1), generator=generator).to(image)
        features = features + strength * flow.sample_noise(features, generator)
        return flow.loss(self(flow.interpolate(image, noise, sigma), flow.timestep(sigma), features), image)

    @torch.no_grad()
    def decode(self, features: Tensor, noise: Tensor, steps: int | None = None) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] from features (B, Q, D) and noise (B, *noise_shape)."""

        def velocity(x: Tensor, sigma: float) -> Tensor:
            return (x - self(x, flow.timestep(sigma).to(x.device), features)) / sigma

        *_, image = flow.euler(velocity, noise, flow.sigmas(steps or self.config.steps))
        return (unfold(image, self.config.fold) / 2 + 0.5).clamp(0, 1)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape of one sample's noise."""
        side = self.config.image_size // self.config.fold
        return (3 * self.config.fold**2, side, side)
