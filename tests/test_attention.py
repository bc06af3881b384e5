"""Attention by hand against transformers' own layers, and the laws that any such attention obeys."""

import pytest
import torch

from blip3o_mini.attention import attend, rotate, watch
from blip3o_mini.backbone import positions

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_turning_keeps_lengths_and_leaves_the_first_token_alone():
    x = draw(2, 3, 6, 8)
    turned = rotate(x, torch.arange(6), 100.0)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), **EXACT)
    assert torch.equal(turned[:, :, 0], x[:, :, 0]) and not torch.allclose(turned[:, :, 1:], x[:, :, 1:])


def test_products_depend_on_the_distance_only():
    q, k = draw(1, 16, seed=1), draw(1, 16, seed=2)
    at = torch.arange(50)
    near, far = (
        rotate(q.expand(50, -1), at + start + 3, 1e4) * rotate(k.expand(50, -1), at + start, 1e4) for start in (0, 200)
    )
    torch.testing.assert_close(near.sum(-1), near.sum(-1)[:1].expand(50), **EXACT)
    torch.testing.assert_close(near.sum(-1), far.sum(-1), **EXACT)


@pytest.mark.parametrize(("length", "total"), [(5, 5), (2, 5), (1, 4)])
def test_weights_add_up_to_one_and_none_goes_to_the_future(length, total):
    q, k, v = draw(2, 6, length, 4), draw(2, 2, total, 4, seed=1), draw(2, 2, total, 4, seed=2)
    mixed, weights = attend(q, k, v)
    assert mixed.shape == q.shape and weights.shape == (2, 6, length, total)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, length).double(), **EXACT)
    assert not weights.triu(total - length + 1).any() and (weights.tril(total - length) > 0).sum() == (
        12 * sum(range(total - length + 1, total + 1))
    )


def test_kept_keys_give_what_a_whole_pass_gives():
    q, k, v = draw(1, 4, 7, 6), draw(1, 2, 7, 6, seed=1), draw(1, 2, 7, 6, seed=2)
    torch.testing.assert_close(attend(q[:, :, 4:], k, v)[0], attend(q, k, v)[0][:, :, 4:], **EXACT)


def test_torch_says_the_same():
    q, k, v = draw(2, 6, 5, 4), draw(2, 2, 5, 4, seed=1), draw(2, 2, 5, 4, seed=2)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(attend(q, k, v)[0], theirs, **EXACT)


@torch.no_grad()
def test_the_layers_of_qwen2_5_vl_say_the_same():
    """The published backbone. Its three position axes, set alike as BLIP3-o does, are one."""
    from transformers.models.qwen2_5_vl import configuration_qwen2_5_vl as configuration
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

    config = configuration.Qwen2_5_VLTextConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1, intermediate_size=64,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}, vocab_size=8,
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    own, x, at = modeling.Qwen2_5_VLAttention(config, 0), torch.randn(2, 6, 32), torch.arange(6)
    turns = modeling.Qwen2_5_VLRotaryEmbedding(config)(x, at.expand(3, 2, 6))
    mask = torch.full((6, 6), -torch.inf).triu(1)
    theirs = own(x, attention_mask=mask, position_embeddings=turns)[0]
    q, k, v = (p(x).unflatten(-1, (-1, 8)).transpose(1, 2) for p in (own.q_proj, own.k_proj, own.v_proj))
    mixed, _ = attend(rotate(q, at, 1e6), rotate(k, at, 1e6), v)
    torch.testing.assert_close(own.o_proj(mixed.transpose(1, 2).flatten(2)), theirs, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_watched_backbone_says_what_it_says_unwatched(tiny_model):
    backbone, config = tiny_model.backbone, tiny_model.config.backbone
    ids = torch.randint(20, 500, (2, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    states, weights = watch(backbone, backbone.embed(ids))
    # float32; the sums run in another order
    torch.testing.assert_close(states, backbone.hidden_states(ids, mask), rtol=1e-4, atol=1e-5)
    assert weights.shape == (2, config.layers, config.heads, 11, 11)
    joint = torch.cat([backbone.embed(ids), backbone.queries.expand(2, -1, -1)], 1)
    condition = watch(backbone, joint)[0][:, -config.num_queries :]
    torch.testing.assert_close(condition, backbone.condition(ids, mask), rtol=1e-4, atol=1e-5)
    assert torch.equal(positions(mask)[0], torch.arange(11))
