"""Images → features: the CLIP tower whose pooled patch grid is what the DiT learns to generate.

tokens = last block of the tower, class token dropped        (B, N, width)
features = average over pool×pool patches                    (B, Q, width)
A small model's features are then whitened: (features − mean) · projection, so that every channel has
unit variance and none is redundant; the published ones stay raw (reference section 3). Lesson 01.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from .config import VisionConfig

END_ID = 1  # the tokenizer's end-of-turn token closes a caption; CLIP reads the text embedding there
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) → float (B, 3, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def square(image: Image.Image, size: int) -> Image.Image:
    """The middle of a picture: shorter side to `size` (bicubic), centre crop; rounded as torchvision does."""
    image = image.convert("RGB")
    wide, high = (max(size, size * side // min(image.size)) for side in image.size)
    if image.size != (wide, high):
        image = image.resize((wide, high), Image.BICUBIC)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return image.crop((left, top, left + size, top + size))


def prepare(images: Sequence[Image.Image], size: int) -> Tensor:
    """Pictures of any shape → (B, 3, size, size) in [0, 1] (reference 3.2)."""
    return to_tensor(np.stack([np.asarray(square(image, size)) for image in images]))


def pool_grid(tokens: Tensor, pool: int) -> Tensor:
    """Average pool×pool patches of a square grid: (B, N, C) → (B, N / pool², C), row by row."""
    side = round(tokens.shape[1] ** 0.5)
    if side**2 != tokens.shape[1] or side % pool:
        raise ValueError(f"{tokens.shape[1]} tokens do not form a square grid divisible by {pool}")
    grid = tokens.transpose(1, 2).unflatten(2, (side, side))  # (B, C, side, side)
    return F.avg_pool2d(grid, pool).flatten(2).transpose(1, 2)  # (B, Q, C)


class WordHead(nn.Module):
    """Reads off every token, by one linear layer, the words that describe what stands in its cell, and where in it.

    Dropped after the vision stage. Contrastive training alone keeps little layout on such a small world, and
    a head that reasons (a captioning decoder) lets the tower store each pair of shape and colour as a symbol
    of its own, which says nothing about pairs never seen. A linear head makes it keep shape, colour and size
    apart, and the offset inside the cell, which the decoder needs for sharp edges. Noise on the tokens makes
    what is read take the large directions.
    """

    NOISE = 0.3

    def __init__(self, width: int, words: int):
        super().__init__()
        self.words = nn.Linear(width, words)
        self.offset = nn.Linear(width, 2)

    def forward(self, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One logit per word (B, Q, words) and the offset (B, Q, 2) from tokens (B, Q, width)."""
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        tokens = tokens + self.NOISE * torch.randn(tokens.shape, generator=generator).to(tokens)
        return self.words(tokens), self.offset(tokens)


class Vision(nn.Module):
    """A CLIP model from open_clip; its image tower gives the features, its text tower trains them."""

    def __init__(self, config: VisionConfig, vocabulary: int):
        super().__init__()
        import open_clip

        self.config = config
        self.clip = open_clip.CLIP(
            embed_dim=config.width,
            vision_cfg=dict(
                image_size=config.image_size, patch_size=config.patch_size, layers=config.layers,
                width=config.width, head_width=config.head_width, mlp_ratio=config.mlp_ratio,
            ),
            text_cfg=dict(
                context_length=config.text_context, vocab_size=vocabulary, width=config.text_width,
                heads=4, layers=config.text_layers, eos_id=END_ID, pool_type="eos",
            ),
        )  # fmt: skip
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        if config.is_whitened:
            self.register_buffer("feature_mean", torch.zeros(config.width))
            self.register_buffer("whitening", torch.eye(config.width)[:, : config.feature_width].clone())

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled patch tokens (B, Q, width) and the image's CLIP embedding, from images in [0, 1]."""
        size = self.config.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images have the shape {tuple(images.shape)}; expected (B, 3, {size}, {size})")
        out = self.clip.visual.forward_intermediates(
            (images - self.mean) / self.std, indices=[-1], output_fmt="NLC"
        )
        return pool_grid(out["image_intermediates"][0], self.config.pool), out["image_features"]

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, Q, feature_width) of images (B, 3, H, W) in [0, 1]."""
        tokens, _ = self.tokens(images)
        if not self.config.is_whitened:
            return tokens
        return (tokens - self.feature_mean) @ self.whitening

    @torch.no_grad()
    def fit_whitening(self, tokens: Tensor) -> Tensor:
        """Set mean and projection from tokens (n, Q, width); return the share of variance of each channel."""
        flat = tokens.flatten(0, 1).double()
        mean = flat.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov((flat - mean).T))
        variance, directions = variance.flip(0), directions.flip(1)  # largest first
        kept = self.config.feature_width
        # A direction's sign is arbitrary: fix it, so that the same data give the same features.
        directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
        self.feature_mean.copy_(mean)
        self.whitening.copy_(directions[:, :kept] / variance[:kept].clamp_min(1e-12).sqrt())
        return (variance / variance.sum()).float()
