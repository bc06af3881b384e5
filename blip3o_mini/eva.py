"""Images → features as published: the EVA-CLIP image tower, whose raw pooled tokens are the DiT's target.

    h = h + LayerNorm(attention(h));  h = h + LayerNorm(mlp(h))        no norm before a branch, none at the end
    features = average over pool×pool patches of the last block        (B, Q, D), class token dropped

Network from timm, sizes and names as in the published file; same role and call as `Vision` (reference section 3).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .config import VisionConfig
from .vision import MEAN, STD, pool_grid

NORM_EPS = 1e-6


class EvaVision(nn.Module):
    """The image tower alone: it was trained elsewhere, and its text side plays no part."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        from timm.models.vision_transformer import ResPostBlock, VisionTransformer

        if config.width % config.head_width:
            raise ValueError(f"the tower's width {config.width} is not divisible by its head width {config.head_width}")
        self.config = config
        self.tower = VisionTransformer(
            img_size=config.image_size, patch_size=config.patch_size, embed_dim=config.width, depth=config.layers,
            num_heads=config.width // config.head_width, mlp_ratio=config.mlp_ratio, num_classes=0, global_pool="",
            final_norm=False, block_fn=ResPostBlock, norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),
        )  # fmt: skip

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] as CLIP reads them; raises ValueError on another size."""
        size = self.config.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images have the shape {tuple(images.shape)}; expected (B, 3, {size}, {size})")
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
        return (images - mean) / std

    def tokens(self, normalised: Tensor) -> Tensor:
        """All tokens of the last block (B, 1 + N, D), the class token first."""
        return self.tower(normalised.to(self.tower.pos_embed.dtype))

    def pooled(self, normalised: Tensor) -> Tensor:
        return pool_grid(self.tokens(normalised)[:, 1:], self.config.pool)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, Q, D) of images (B, 3, H, W) in [0, 1]."""
        return self.pooled(self.normalise(images))

    @torch.no_grad()
    def null_features(self, device: torch.device) -> Tensor:
        """Features (1, Q, D) of a picture that is all zeros once normalised: the decoder's negative (reference 2.2)."""
        size = self.config.image_size
        return self.pooled(torch.zeros(1, 3, size, size, device=device))
