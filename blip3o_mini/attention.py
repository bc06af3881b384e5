"""Attention by hand: what the backbone's layers compute, with the weights to look at. Lesson 02.

    weights = softmax(rotate(q) · rotate(k) / √W), of keys that do not lie in the future
    mixed   = weights · v

Several heads of q share one head of k and v (grouped heads). The model itself runs transformers' faster layers;
`watch` runs those layers' weights through these functions and gives the same states up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Turn pair (i, i + W/2) of x (…, T, W) by the angle position · theta^(−2i/W); positions are (T,)."""
    half = x.shape[-1] // 2
    speed = theta ** (-torch.arange(half).to(x) / half)  # (W/2,)
    angle = positions[:, None].to(x) * speed  # (T, W/2)
    first, second = x[..., :half], x[..., half:]
    turned = first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()
    return torch.cat(turned, -1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Let q (B, heads, T, W) look at k and v (B, kv_heads, S, W): the mixed values, and the weights.

    The T queries are the last T of the S tokens: with T < S, the others' keys and values were kept from before.
    """
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.mT / q.shape[-1] ** 0.5  # (B, heads, T, S)
    length, total = scores.shape[-2:]
    is_future = torch.ones(length, total).to(q).triu(total - length + 1).bool()
    weights = scores.masked_fill(is_future, -torch.inf).softmax(-1)
    return weights @ v, weights


def watch(backbone, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Run a backbone on embeddings (B, T, H) without padding: final states (B, T, H), and every attention weight.

    The weights are (B, layers, heads, T, T): row t tells how much token t takes from each token before it.
    """
    core, x, weights = backbone.language.model, embeddings, []
    positions = torch.arange(x.shape[1])
    for layer in core.layers:
        own, normed = layer.self_attn, layer.input_layernorm(x)
        q, k, v = (
            project(normed).unflatten(-1, (-1, own.head_dim)).transpose(1, 2)
            for project in (own.q_proj, own.k_proj, own.v_proj)
        )
        q, k = (rotate(one, positions, backbone.config.rope_theta) for one in (q, k))
        mixed, looked = attend(q, k, v)
        x = x + own.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        weights.append(looked)
    return core.norm(x), torch.stack(weights, 1)
