"""Images to features: pooling against a loop, whitening against the identity, pictures of any shape."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from blip3o_mini.vision import pool_grid, prepare, to_tensor


@pytest.mark.parametrize("side, pool", [(4, 2), (6, 3), (3, 1)])
def test_pooling_equals_a_loop(side, pool):
    tokens = torch.randn(2, side**2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = tokens.reshape(2, side, side, 5)
    corners = [(row, column) for row in range(0, side, pool) for column in range(0, side, pool)]
    cells = [grid[:, row : row + pool, column : column + pool].mean((1, 2)) for row, column in corners]
    torch.testing.assert_close(pool_grid(tokens, pool), torch.stack(cells, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count, pool", [(8, 1), (9, 2)])
def test_tokens_that_form_no_grid_are_refused(count, pool):
    with pytest.raises(ValueError, match=f"{count} tokens .* divisible by {pool}"):
        pool_grid(torch.zeros(1, count, 3), pool)


def test_whitened_features_have_identity_covariance(tiny_model):
    vision = copy.deepcopy(tiny_model.vision)
    width = vision.config.width
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(width, width, generator=generator)
    tokens = torch.randn(500, 9, width, generator=generator) @ mixing + 3
    shares = vision.fit_whitening(tokens)
    assert shares.sum().item() == pytest.approx(1) and bool((shares.diff() <= 1e-7).all())  # largest first
    features = ((tokens - vision.feature_mean) @ vision.whitening).flatten(0, 1).double()
    # The tower stores mean and projection in float32: looser than our own maths.
    torch.testing.assert_close(features.mean(0), torch.zeros_like(features[0]), rtol=0, atol=1e-3)
    identity = torch.eye(features.shape[1], dtype=torch.float64)
    torch.testing.assert_close(torch.cov(features.T), identity, rtol=0, atol=1e-2)


@pytest.mark.parametrize("size", [(72, 72), (73, 72), (1, 500), (500, 3), (200, 101), (5, 5)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_pictures_of_any_shape_become_squares(size, mode):
    images = prepare([Image.new(mode, size)], 72)
    assert images.shape == (1, 3, 72, 72) and images.min() >= 0 and images.max() <= 1


def test_the_crop_is_the_centre_and_a_fitting_picture_stays_as_it_is(rng):
    pixels = rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    assert torch.equal(prepare([Image.fromarray(pixels)], 72), to_tensor(pixels[None]))
    wide = np.zeros((72, 272, 3), np.uint8)
    wide[:, 100:172] = pixels
    assert torch.equal(prepare([Image.fromarray(wide)], 72), to_tensor(pixels[None]))


def test_another_size_is_refused(tiny_model):
    with pytest.raises(ValueError, match=r"\(2, 3, 64, 72\); expected \(B, 3, 72, 72\)"):
        tiny_model.vision(torch.zeros(2, 3, 64, 72))


@torch.no_grad()
def test_a_batch_gives_what_single_pictures_give(tiny_model):
    images = torch.rand(3, 3, 72, 72, generator=torch.Generator().manual_seed(0))
    together = tiny_model.vision(images)
    assert together.shape == (3, 9, tiny_model.config.vision.feature_width)
    for k in range(3):
        torch.testing.assert_close(together[k], tiny_model.vision(images[k : k + 1])[0], rtol=1e-4, atol=1e-5)
