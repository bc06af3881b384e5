"""The Next-DiT: noisy features, noise level and condition → velocity. Lesson 04.

A transformer over the cells of the feature grid. Each block reads the other cells (self-attention) and the
condition (cross-attention) side by side, from the same input, and merges both through one projection; norms
stand before and after each branch, and the noise level scales and gates the branches:

    n = RMS(h)·(1 + s_a)        h += tanh(g_a)·RMS(W·[self(n) + tanh(gate)·cross(n, c)])
                                h += tanh(g_m)·RMS(FFN(RMS(h)·(1 + s_m)))

Sizes, formulas and parameter names are those of the published checkpoints (reference section 4), so their
weights load as they are. Three options serve small models only: `positions`, `is_aligned`, `has_source`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import DitConfig

EPS = 1e-5
SINUSOIDS = 256  # width of the noise level's code before the learned layers


def sinusoids(timestep: Tensor) -> Tensor:
    """Code each timestep (B,) in 0..1000 as 128 cosines, then 128 sines, of falling frequency: (B, 256)."""
    half = SINUSOIDS // 2
    exponents = torch.arange(half, device=timestep.device, dtype=torch.float32) / half
    angles = timestep.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@lru_cache(maxsize=32)
def rotary_table(rows: int, columns: int, head_width: int, device: torch.device) -> Tensor:
    """Unit complex numbers (rows·columns, head_width/2) by which each cell's channel pairs are multiplied.

    Even pairs turn with the row, odd pairs with the column: (row, f0), (column, f0), (row, f1), …
    footgun: kept out of the module on purpose, so that neither `.half()` nor the meta device can reach it.
    """
    with torch.inference_mode(False):  # a table first built while sampling must still serve in training
        real = {"device": "cpu", "dtype": torch.float64}
        frequencies = 10_000.0 ** -(torch.arange(head_width // 4, **real) / (head_width // 4))
        row, column = torch.meshgrid(torch.arange(rows, **real), torch.arange(columns, **real), indexing="ij")
        cells = torch.stack([row.flatten(), column.flatten()], dim=-1)  # (Q, 2)
        angles = (cells[:, None, :] * frequencies[:, None]).flatten(1)  # (Q, head_width/2)
        return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(device)


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn neighbouring channel pairs (2i, 2i+1) of x (B, Q, heads, d) by their cell's angles."""
    # as complex numbers: on a CPU eight times faster than slicing even and odd channels apart
    pairs = torch.view_as_complex(x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotary[:, None]).flatten(-2).to(x.dtype)


def ffn_width(width: int, multiple_of: int) -> int:
    """Two thirds of four times the width, rounded up: 1792 → 4864 (reference section 4.4)."""
    return math.ceil(int(2 * (4 * width) / 3) / multiple_of) * multiple_of


class RmsNorm(nn.RMSNorm):
    """x / root mean square · weight; mixed precision may hand it an x narrower than the weight."""

    def __init__(self, width: int):
        super().__init__(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


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

    def forward(self, x: Tensor, context: Tensor, rotary: Tensor, *, is_key_turned: bool) -> Tensor:
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
        self.norm = RmsNorm(width)

    def forward(self, h: Tensor, steer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale, gate, ffn_scale, ffn_gate = self.linear(steer)[:, None].chunk(4, dim=-1)  # each (B, 1, W)
        return self.norm(h) * (1 + scale), gate.tanh(), ffn_scale, ffn_gate.tanh()


class Block(nn.Module):
    """One block (reference section 4.3). `steer` is SiLU of the time and caption embedding."""

    def __init__(self, config: DitConfig, embed_width: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(config.heads))  # per head; cross-attention starts silent
        self.norm1 = SteeredNorm(config.width, embed_width)
        self.norm1_context = RmsNorm(config.width)
        self.attn1 = Attention(config)
        self.attn2 = Attention(config)
        # the one output projection of both attentions has this name in the published weights
        self.attn2.to_out = nn.ModuleList([nn.Linear(config.width, config.width, bias=False)])
        self.norm2 = RmsNorm(config.width)
        self.ffn_norm1 = RmsNorm(config.width)
        self.feed_forward = FeedForward(config.width, ffn_width(config.width, config.multiple_of))
        self.ffn_norm2 = RmsNorm(config.width)

    def forward(self, h: Tensor, condition: Tensor, steer: Tensor, rotary: Tensor) -> Tensor:
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
        check_sizes(config)
        self.config = config
        embed_width = min(config.width, 1024)
        self.patch_embedder = nn.ModuleDict({"proj": nn.Linear(config.feature_width, config.width)})
        self.caption_projection = CaptionProjection(config.condition_width, config.width)
        self.time_caption_embed = TimeCaptionEmbed(config.width, embed_width)
        self.layers = nn.ModuleList([Block(config, embed_width) for _ in range(config.layers)])
        self.norm_out = NormOut(config.width, embed_width, config.feature_width)
        if config.positions:
            # rotary tells only distances; a small model learns layout faster from a cell's place
            self.positions = nn.Parameter(0.02 * torch.randn(config.positions, config.width))
        if config.is_aligned:
            # one query per cell: the shortest way for each query to learn which cell it speaks for
            self.condition_embedder = nn.Linear(config.width, config.width, bias=False)
            nn.init.zeros_(self.condition_embedder.weight)
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
        rows, columns = grid or (math.isqrt(features.shape[1]),) * 2
        self._check_inputs(features, condition, source, rows, columns)
        rotary = rotary_table(rows, columns, self.config.width // self.config.heads, features.device)
        h = self.patch_embedder["proj"](features)  # (B, Q, W): a patch is one cell
        if self.config.positions:
            h = h + self.positions
        if source is not None:
            h = h + self.source_embedder(source)
        condition = self.caption_projection(condition)  # (B, K, W)
        if self.config.is_aligned:
            h = h + self.condition_embedder(condition)
        timestep = timestep.to(features.device).expand(len(features))
        steer = F.silu(self.time_caption_embed(timestep, condition))  # (B, min(W, 1024))
        for layer in self.layers:
            h = layer(h, condition, steer, rotary)
        return self.norm_out(h, steer)

    def _check_inputs(
        self, features: Tensor, condition: Tensor, source: Tensor | None, rows: int, columns: int
    ) -> None:
        """Raise ValueError where the inputs do not fit the network or each other."""
        cells, config = features.shape[1], self.config
        for name, tensor, width in (
            ("features are", features, config.feature_width),
            ("condition is", condition, config.condition_width),
        ):
            if tensor.shape[-1] != width:
                raise ValueError(f"the {name} {tensor.shape[-1]} wide; this network takes {width}")
        if len(condition) != len(features):
            raise ValueError(
                f"{len(features)} samples of features need as many conditions, not {len(condition)}"
            )
        if rows * columns != cells:
            raise ValueError(f"{cells} cells do not fill {rows} rows of {columns}; pass grid=(rows, columns)")
        if config.positions not in (0, cells):
            raise ValueError(f"this network has learned {config.positions} positions, not {cells}")
        if source is not None and not config.has_source:
            raise ValueError("this network reads no source image; build it with has_source=True")
        if source is not None and source.shape != features.shape:
            raise ValueError(f"the source {tuple(source.shape)} must have the shape {tuple(features.shape)}")


def check_sizes(config: DitConfig) -> None:
    """Raise ValueError where the sizes cannot form heads, with sizes that can."""
    if config.width % (4 * config.heads):
        fitting = math.ceil(config.width / (4 * config.heads)) * 4 * config.heads
        raise ValueError(
            f"width {config.width} does not split into {config.heads} heads of a multiple of 4 channels "
            f"(rows and columns each turn pairs of them); choose width={fitting}"
        )
    if config.heads % config.kv_heads:
        raise ValueError(f"{config.heads} heads cannot share {config.kv_heads} key/value heads evenly")
