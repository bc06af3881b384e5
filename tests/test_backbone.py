"""The backbone: causal, blind to padding, and the same in two passes as in one.

Queries and prompt run separately through cached keys and values, which must change nothing but the time.
"""

import pytest
import torch

from blip3o_mini.backbone import positions
from blip3o_mini.tokens import pad_left

TEXTS = ("a red circle", "two small blue stars above a large green heart", "hello")


@pytest.fixture
def backbone(tiny_model):
    return tiny_model.backbone


@pytest.fixture
def padded(tiny_model):
    """Three prompts of different length, and each alone."""
    chat = tiny_model.chat_tokens
    rows = [[*chat.chat([{"role": "user", "content": text}])[0], chat.start_of_image] for text in TEXTS]
    return stack(rows, chat), [stack([row], chat) for row in rows]


def stack(rows, chat):
    return tuple(torch.from_numpy(a) for a in pad_left(rows, chat.pad))


def shown(tiny_model, pictures=1):
    chat = tiny_model.chat_tokens
    return stack([[chat.user, *chat.picture * pictures, *chat.words("what is it?")]], chat)


@torch.no_grad()
def test_a_prefix_does_not_see_what_follows(backbone):
    ids = torch.randint(20, 500, (1, 12), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 500
    mask = torch.ones_like(ids)
    one, other = backbone.hidden_states(ids, mask), backbone.hidden_states(changed, mask)
    torch.testing.assert_close(one[:, :7], other[:, :7])
    assert (one[:, 7:] - other[:, 7:]).abs().amax(-1).min() > 1e-3  # the changed tokens themselves do matter


@torch.no_grad()
def test_padding_changes_nothing(backbone, padded):
    (ids, mask), singles = padded
    assert mask.sum(1).unique().numel() == 3  # or nothing would be padded
    together, conditions = backbone.hidden_states(ids, mask), backbone.condition(ids, mask)
    for k, single in enumerate(singles):
        length = single[0].shape[1]
        torch.testing.assert_close(together[k, -length:], backbone.hidden_states(*single)[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(conditions[k], backbone.condition(*single)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_two_passes_equal_one_joint_forward(backbone, padded):
    ids, mask = padded[0]
    queries = backbone.queries.expand(len(ids), -1, -1)
    full = torch.cat([mask, mask.new_ones(queries.shape[:2])], dim=1)
    joint = backbone.language.model(
        inputs_embeds=torch.cat([backbone.embed(ids), queries], dim=1), attention_mask=full,
        position_ids=positions(full),
    ).last_hidden_state[:, ids.shape[1] :]  # fmt: skip
    torch.testing.assert_close(backbone.condition(ids, mask), joint, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_features_enter_at_their_placeholders_only(tiny_model):
    backbone, config = tiny_model.backbone, tiny_model.config.vision
    ids, _ = shown(tiny_model, pictures=2)
    features = torch.randn(2, config.num_features, config.feature_width, generator=torch.Generator().manual_seed(0))
    embedded = backbone.embed(ids, features)
    is_image = ids == backbone.image_pad
    plain = backbone.language.get_input_embeddings()(ids)
    assert torch.equal(embedded[~is_image], plain[~is_image])
    placed = backbone.image_projector(features) + backbone.image_positions
    assert torch.equal(embedded[is_image], placed.flatten(0, 1))  # in reading order


@pytest.mark.parametrize("given", [None, 1, 3])
def test_another_number_of_features_is_refused(tiny_model, given):
    config = tiny_model.config.vision
    ids, mask = shown(tiny_model, pictures=2)
    features = None if given is None else torch.zeros(given, config.num_features, config.feature_width)
    with pytest.raises(ValueError, match=f"hold 18 image tokens but {9 * (given or 0)} features"):
        tiny_model.backbone.hidden_states(ids, mask, features)


def test_too_long_is_refused_with_its_numbers(backbone):
    room = backbone.config.context - backbone.config.num_queries
    ids = torch.full((1, room + 3), 20)
    with pytest.raises(ValueError, match=r"needs 259 tokens .*holds 256; shorten it by 3 tokens"):
        backbone.condition(ids, torch.ones_like(ids))
    with torch.no_grad():
        assert backbone.condition(ids[:, :room], torch.ones(1, room, dtype=torch.long)).shape[1] == 9
    with pytest.raises(ValueError, match="shorten it by 1 tokens"):
        backbone.write(torch.full((1, 256), 20), torch.ones(1, 256, dtype=torch.long))


def test_a_frozen_language_still_teaches_the_queries(tiny_model, padded):
    import copy

    backbone = copy.deepcopy(tiny_model.backbone).requires_grad_(False)
    backbone.queries.requires_grad_(True)
    backbone.condition(*padded[0]).square().mean().backward()
    assert backbone.queries.grad.abs().amax(-1).min() > 0  # every query learns
    assert all(p.grad is None for name, p in backbone.named_parameters() if name != "queries")
