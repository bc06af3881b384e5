"""Features to pixels: folding is undone exactly, everything learns, the same noise gives the same picture."""

import copy

import pytest
import torch

from blip3o_mini.decoder import fold, unfold


def random(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_unfold_undoes_fold(size):
    images = random(2, 3, 12, 24)
    folded = fold(images, size)
    assert folded.shape == (2, 3 * size**2, 12 // size, 24 // size)
    assert torch.equal(unfold(folded, size), images)
    square = folded[:, :, 1, 2].reshape(2, 3, size, size)
    assert torch.equal(square, images[:, :, size : 2 * size, 2 * size : 3 * size])  # one cell is one square


def test_the_loss_reaches_every_parameter(tiny_model):
    decoder = copy.deepcopy(tiny_model.decoder).requires_grad_(True)
    features = random(2, 9, decoder.config.feature_width)
    decoder.loss(random(2, 3, 72, 72), features, torch.Generator().manual_seed(0)).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@torch.no_grad()
def test_decoding_is_deterministic_and_reads_features_and_noise(tiny_model):
    decoder = tiny_model.decoder
    features, noise = random(2, 9, decoder.config.feature_width), normal(2, *decoder.noise_shape)
    images = decoder.decode(features, noise, 2)
    assert images.shape == (2, 3, 72, 72) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, decoder.decode(features, noise, 2))
    assert not torch.equal(images, decoder.decode(features + 1, noise, 2))
    assert not torch.equal(images, decoder.decode(features, noise.flip(0), 2))


@torch.no_grad()
def test_a_batch_gives_what_single_pictures_give(tiny_model):
    decoder = tiny_model.decoder
    features, noise = random(3, 9, decoder.config.feature_width), normal(3, *decoder.noise_shape)
    together = decoder.decode(features, noise, 2)
    for k in range(3):
        alone = decoder.decode(features[k : k + 1], noise[k : k + 1], 2)[0]
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-4)  # convolutions sum in another order


@torch.no_grad()
def test_a_perfect_guess_is_reached_exactly(tiny_model, monkeypatch):
    decoder = tiny_model.decoder
    images = random(2, 3, 72, 72)
    target = fold(2 * images - 1, decoder.config.fold)
    monkeypatch.setattr(decoder, "forward", lambda x, timestep, features: target)
    for steps in (1, 5):
        reached = decoder.decode(random(2, 9, decoder.config.feature_width), normal(*target.shape), steps)
        torch.testing.assert_close(reached, images, rtol=0, atol=1e-5)
