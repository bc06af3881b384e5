"""The Next-DiT: noisy features, noise level and condition → velocity. Lesson 04.

A transformer over the cells of the feature grid. Each block reads the other cells (self-attention) and the
condition (cross-attention) side by side, from the same input, and merges both through one projection; norms
stand before and after each branch, and the noise level scales and gates the branches:

    n = RMS(h)·(1 + s_a)        h += tanh(g_a)·RMS(W·[self(n) + tanh(gate)·cross(n, c)])
                                h += tanh(g_m)·RMS(FFN(RMS(h)·(1 + s_m)))

Sizes, formulas and parameter names are those of the published checkpoints (reference section 4), so their
weights load as they are. Two options serve small models only: `positions` and `has_source`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import DitConfig

Rotary = tuple[Tensor, Tensor]
EPS = 1e-5
SINUSOIDS = 256  # width of the noise level's code before the learned layers


def sinusoids(timestep: Tensor) -> Tensor:
    """Code each timestep (B,) in 0..1000 as 128 cosines, then 128 sines, of falling frequency: (B, 256)."""
    half = SINUSOIDS // 2
    exponents = torch.arange(half, device=timestep.device, dtype=torch.float32) / half
    angles = timestep.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@lru_cache(maxsize=32)
def rotary_table(rows: int, columns: int, head_width: int, device: torch.device) -> Rotary:
    """Cosines and sines (rows·columns, head_width/2) by which each cell's channel pairs turn.

    Even pairs turn with the row, odd pairs with the column: (row, f0), (column, f0), (row, f1), …
    footgun: kept out of the module on purpose, so that neither `.half()` nor the meta device can reach it.
    """
    with torch.inference_mode(False):  # a table first built while sampling must still serve in training
        count = head_width // 4
        exponents = torch.arange(count, device="cpu", dtype=torch.float64) / count
        row, column = torch.meshgrid(
            torch.arange(rows, device="cpu", dtype=torch.float64),
            torch.arange(columns, device="cpu", dtype=torch.float64),
            indexing="ij",
        )
        cells = torch.stack([row.flatten(), column.flatten()], dim=-1)  # (Q, 2)
        angles = (cells[:, None, :] * (10_000.0**-exponents)[:, None]).flatten(1)  # (Q, head_width/2)
        return angles.cos().to(device, torch.float32), angles.sin().to(device, torch.float32)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn neighbouring channel pairs (2i, 2i+1) of x (B, Q, heads, head width) by their cell's angles."""
    cos, sin = (table[:, None, :] for table in rotary)  # (Q, 1, head width/2)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def ffn_width(width: int, multiple_of: int) -> int:
    """Two thirds of four times the width, rounded up: 1792 → 4864 (reference section 4.4)."""
    return math.ceil(int(2 * (4 * width) / 3) / multiple_of) * multiple_of


class PatchEmbedder(nn.Module):
    """Feature cells → tokens; a patch is one cell."""

    def __init__(self, feature_width: int, width: int):
        super().__init__()
        self.proj = nn.Linear(feature_width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.proj(features)


class CaptionProjection(nn.Module):
    """Condition (B, K, H) → the network's width (B, K, W), once for all blocks."""

    def __init__(self, condition_width: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(condition_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, condition: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(condition), approximate="tanh"))


class TimestepEmbedder(nn.Module):
    """Timestep (B,) → (B, E)."""

    def __init__(self, embed_width: int):
        super().__init__()
        self.linear_1 = nn.Linear(SINUSOIDS, embed_width)
        self.linear_2 = nn.Linear(embed_width, embed_width)

    def forward(self, timestep: Tensor) -> Tensor:
        code = sinusoids(timestep).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(code)))


class TimeCaptionEmbed(nn.Module):
    """Noise level and the mean of the condition → one vector per sample, which steers every norm."""

    def __init__(self, width: int, embed_width: int):
        super().__init__()
        self.timestep_embedder = TimestepEmbedder(embed_width)
        self.caption_embedder = nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Linear(width, embed_width))

    def forward(self, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.timestep_embedder(timestep) + self.caption_embedder(condition.mean(1))


class Attention(nn.Module):
    """Attention up to the heads' results; queries are always turned by position, keys only on request."""

    def __init__(self, config: DitConfig):
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_width = config.width // config.heads
        kv_width = self.head_width * config.kv_heads
        self.to_q = nn.Linear(config.width, config.width, bias=False)
        self.to_k = nn.Linear(config.width, kv_width, bias=False)
        self.to_v = nn.Linear(config.width, kv_width, bias=False)
        # norms over all heads together, before the split into heads (reference section 10, Q14)
        self.norm_q = nn.LayerNorm(config.width, eps=EPS)
        self.norm_k = nn.LayerNorm(kv_width, eps=EPS)

    def forward(self, x: Tensor, context: Tensor, rotary: Rotary, *, is_key_turned: bool) -> Tensor:
        q = self.norm_q(self.to_q(x)).unflatten(-1, (self.heads, self.head_width))  # (B, Q, heads, d)
        k = self.norm_k(self.to_k(context)).unflatten(-1, (self.kv_heads, self.head_width))
        v = self.to_v(context).unflatten(-1, (self.kv_heads, self.head_width))
        q = rotate(q, rotary)
        if is_key_turned:
            k = rotate(k, rotary)
        if self.kv_heads < self.heads:  # each key head serves heads / kv_heads neighbouring query heads
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=2) for part in (k, v))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, heads, Q or K, d)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (B, Q, heads, d)


class CrossAttention(Attention):
    """Attention to the condition; it also keeps the output projection that both attentions share."""

    def __init__(self, config: DitConfig):
        super().__init__(config)
        self.to_out = nn.ModuleList([nn.Linear(config.width, config.width, bias=False)])


class FeedForward(nn.Module):
    """W2(SiLU(W1·x) ∘ W3·x), without biases."""

    def __init__(self, width: int, inner_width: int):
        super().__init__()
        self.linear_1 = nn.Linear(width, inner_width, bias=False)
        self.linear_2 = nn.Linear(inner_width, width, bias=False)
        self.linear_3 = nn.Linear(width, inner_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)) * self.linear_3(x))


class SteeredNorm(nn.Module):
    """RMS norm scaled by the noise level, with the three other steering vectors of the block."""

    def __init__(self, width: int, embed_width: int):
        super().__init__()
        self.linear = nn.Linear(embed_width, 4 * width)
        self.norm = nn.RMSNorm(width, eps=EPS)

    def forward(self, h: Tensor, steer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale, gate, ffn_scale, ffn_gate = self.linear(steer)[:, None].chunk(4, dim=-1)  # each (B, 1, W)
        return self.norm(h) * (1 + scale), gate.tanh(), ffn_scale, ffn_gate.tanh()


class Block(nn.Module):
    """One block (reference section 4.3). `steer` is SiLU of the time and caption embedding."""

    def __init__(self, config: DitConfig, embed_width: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(config.heads))  # per head; cross-attention starts silent
        self.norm1 = SteeredNorm(config.width, embed_width)
        self.norm1_context = nn.RMSNorm(config.width, eps=EPS)
        self.attn1 = Attention(config)
        self.attn2 = CrossAttention(config)
        self.norm2 = nn.RMSNorm(config.width, eps=EPS)
        self.ffn_norm1 = nn.RMSNorm(config.width, eps=EPS)
        self.feed_forward = FeedForward(config.width, ffn_width(config.width, config.multiple_of))
        self.ffn_norm2 = nn.RMSNorm(config.width, eps=EPS)

    def forward(self, h: Tensor, condition: Tensor, steer: Tensor, rotary: Rotary) -> Tensor:
        n, gate, ffn_scale, ffn_gate = self.norm1(h, steer)
        to_cells = self.attn1(n, n, rotary, is_key_turned=True)  # (B, Q, heads, d)
        # quirk kept for the published weights (Q15): here the queries are turned, the keys are not
        to_condition = self.attn2(n, self.norm1_context(condition), rotary, is_key_turned=False)
        merged = (to_cells + self.gate.tanh()[:, None] * to_condition).flatten(2)  # (B, Q, W)
        h = h + gate * self.norm2(self.attn2.to_out[0](merged))
        return h + ffn_gate * self.ffn_norm2(self.feed_forward(self.ffn_norm1(h) * (1 + ffn_scale)))


class NormOut(nn.Module):
    """Last norm, scaled by the noise level (no shift), and the linear layer back to features."""

    def __init__(self, width: int, embed_width: int, feature_width: int):
        super().__init__()
        self.linear_1 = nn.Linear(embed_width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear_2 = nn.Linear(width, feature_width)

    def forward(self, h: Tensor, steer: Tensor) -> Tensor:
        return self.linear_2(self.norm(h) * (1 + self.linear_1(steer)[:, None]))


class NextDit(nn.Module):
    """Predict the velocity of noisy features, given their timestep and a condition."""

    def __init__(self, config: DitConfig):
        super().__init__()
        check(config)
        self.config = config
        embed_width = min(config.width, 1024)
        self.patch_embedder = PatchEmbedder(config.feature_width, config.width)
        self.caption_projection = CaptionProjection(config.condition_width, config.width)
        self.time_caption_embed = TimeCaptionEmbed(config.width, embed_width)
        self.layers = nn.ModuleList([Block(config, embed_width) for _ in range(config.layers)])
        self.norm_out = NormOut(config.width, embed_width, config.feature_width)
        if config.positions:
            # rotary tells only distances; a small model learns layout faster from a cell's place
            self.positions = nn.Parameter(0.02 * torch.randn(config.positions, config.width))
        if config.has_source:
            # starts at zero, without bias: a source of zeros always means "no source"
            self.source_embedder = nn.Linear(config.feature_width, config.width, bias=False)
            nn.init.zeros_(self.source_embedder.weight)

    def forward(
        self,
        features: Tensor,
        timestep: Tensor,
        condition: Tensor,
        *,
        source: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Noisy features (B, Q, D), timestep (B,) or () in 0..1000, condition (B, K, H) → velocity (B, Q, D).

        timestep is 1000·sigma (`flow.timestep`). source: features (B, Q, D) of the image to edit.
        grid: rows and columns of the Q cells, row by row; square when not given.
        """
        rows, columns = self._grid(features, condition, source, grid)
        rotary = rotary_table(rows, columns, self.config.width // self.config.heads, features.device)
        h = self.patch_embedder(features)  # (B, Q, W)
        if self.config.positions:
            h = h + self.positions
        if source is not None:
            h = h + self.source_embedder(source)
        condition = self.caption_projection(condition)  # (B, K, W)
        timestep = timestep.to(features.device).expand(len(features))
        steer = F.silu(self.time_caption_embed(timestep, condition))  # (B, min(W, 1024))
        for layer in self.layers:
            h = layer(h, condition, steer, rotary)
        return self.norm_out(h, steer)

    def _grid(
        self, features: Tensor, condition: Tensor, source: Tensor | None, grid: tuple[int, int] | None
    ) -> tuple[int, int]:
        """Rows and columns of the feature grid; raises ValueError where the inputs do not fit the network."""
        cells = features.shape[1]
        rows, columns = grid or (math.isqrt(cells),) * 2
        for name, tensor, width in (
            ("features", features, self.config.feature_width),
            ("condition", condition, self.config.condition_width),
        ):
            if tensor.shape[-1] != width:
                raise ValueError(f"the {name} are {tensor.shape[-1]} wide; this network takes {width}")
        if rows * columns != cells:
            raise ValueError(f"{cells} cells do not fill {rows} rows of {columns}; pass grid=(rows, columns)")
        if self.config.positions not in (0, cells):
            raise ValueError(f"this network has {self.config.positions} positions, not {cells}")
        if source is not None and not self.config.has_source:
            raise ValueError("this network reads no source image; build it with has_source=True")
        return rows, columns


def check(config: DitConfig) -> None:
    """Raise ValueError where the sizes cannot form heads, with sizes that can."""
    if config.width % config.heads:
        fitting = [n for n in range(1, config.width // 4 + 1) if config.width % (4 * n) == 0]
        raise ValueError(
            f"width {config.width} is not divisible by {config.heads} heads; choose heads from {fitting}"
        )
    if (head_width := config.width // config.heads) % 4:
        raise ValueError(
            f"head width {head_width} (width {config.width} / {config.heads} heads) is not divisible by 4; "
            "rows and columns each turn whole pairs of channels"
        )
    if config.heads % config.kv_heads:
        raise ValueError(f"{config.heads} heads cannot share {config.kv_heads} key/value heads evenly")
