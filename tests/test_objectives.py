"""Losses against closed forms: zero for an oracle, symmetric, and blind to what may not be judged."""

import math

import pytest
import torch

from blip3o_mini import flow
from blip3o_mini.objectives import contrastive_loss, flow_loss, word_loss


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_flow_loss_of_an_oracle_is_zero():
    features = normal(4, 9, 6)
    generator = torch.Generator().manual_seed(3)
    noise = flow.sample_noise(features, torch.Generator().manual_seed(3))

    def oracle(x, timestep, condition, source=None):
        return flow.velocity_target(features, noise)

    def wrong_by_one(x, timestep, condition, source=None):
        return oracle(x, timestep, condition) + 1

    assert flow_loss(oracle, features, normal(4, 9, 5), generator).item() == 0
    off = flow_loss(wrong_by_one, features, normal(4, 9, 5), generator.manual_seed(3))
    assert off.item() == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_a_dropped_condition_is_zero_and_the_source_is_kept(drop):
    seen = []
    features, condition, source = normal(4, 9, 6), normal(4, 9, 5, seed=1), normal(4, 9, 6, seed=2)

    def network(x, timestep, condition, source=None):
        seen.append((condition, source))
        return x

    flow_loss(network, features, condition, torch.Generator().manual_seed(0), source=source, drop=drop)
    assert torch.equal(seen[0][0], condition * (1 - drop)) and torch.equal(seen[0][1], source)


def test_the_contrastive_loss_is_symmetric_and_knows_its_ends():
    image, text, scale = normal(5, 8), normal(5, 8, seed=1), torch.tensor(7.0, dtype=torch.float64)
    one, other = contrastive_loss(image, text, scale), contrastive_loss(text, image, scale)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0)
    longer = contrastive_loss(3 * image, text / 2, scale)
    torch.testing.assert_close(one, longer, rtol=1e-9, atol=0)  # only directions count
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(one, contrastive_loss(image[order], text[order], scale), rtol=1e-9, atol=0)
    alike = torch.ones(5, 8, dtype=torch.float64)
    assert contrastive_loss(alike, alike, scale).item() == pytest.approx(math.log(5), rel=1e-9)
    apart = torch.eye(5, dtype=torch.float64)
    assert contrastive_loss(apart, apart, 100 * torch.ones(())).item() < 1e-9


def test_words_that_may_not_be_judged_do_not_count():
    logits = torch.zeros(2, 3, 4, dtype=torch.float64, requires_grad=True)
    judged = torch.tensor([[[1.0, 0, 1, 0]], [[1.0, 0, 1, 0]]], dtype=torch.float64)
    loss = word_loss(logits, torch.ones_like(logits), judged)
    assert loss.item() == pytest.approx(2 * math.log(2), rel=1e-9)  # two judged words at even odds
    loss.backward()
    assert not logits.grad[..., [1, 3]].any() and bool(logits.grad[..., [0, 2]].all())
