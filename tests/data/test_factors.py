"""Images made from known factors."""

import numpy as np
import pytest

from elbo_lab.data import Spec, first_of_test, hold_out, load, spec_of
from elbo_lab.data.factors import FACTORS, SIZES


@pytest.fixture(scope="module")
def data():
    return load("factors")


def by_factors(data):
    """All images [3, 4, 6, 10, 10, H, W], by the indices of their factors."""
    images = np.empty((*FACTORS.values(), *data.image_shape), np.uint8)
    for x, factors in ((data.x_train, data.factors.train), (data.x_test, data.factors.test)):
        images[tuple(factors.T)] = x.reshape(-1, *data.image_shape)
    return images


def test_every_combination_is_one_image_and_another_one(data):
    factors = np.concatenate([data.factors.train, data.factors.test])
    assert len(np.unique(factors, axis=0)) == len(factors) == np.prod([*FACTORS.values()])
    assert factors.min(0).tolist() == [0] * 5
    assert (1 + factors.max(0)).tolist() == [*FACTORS.values()]
    pixels = np.concatenate([data.x_train, data.x_test])
    assert set(np.unique(pixels)) == {0, 255}
    assert len(np.unique(np.packbits(pixels > 0, axis=1), axis=0)) == len(pixels)
    np.testing.assert_array_equal(data.y_train, data.factors.train[:, 0])
    assert spec_of(data, "none") == Spec("image", (32, 32), 2, classes=3)


def test_factors_do_what_they_are_named_for(data):
    images = by_factors(data).astype(float) / 255
    area = images.sum((-2, -1))
    assert np.all(np.diff(area.mean((0, 2, 3, 4))) > 0)  # scale
    across = (images.sum(-2) * np.arange(32)).sum(-1) / area
    down = (images.sum(-1) * np.arange(32)).sum(-1) / area
    # The centre moves by (24.9 - 7.1) / 9 pixels a step, up to the raster.
    step = (24.9 - 7.1) / 9
    assert np.diff(across.mean((0, 1, 2, 4))) == pytest.approx(step, abs=0.05)
    assert np.diff(down.mean((0, 1, 2, 3))) == pytest.approx(step, abs=0.05)
    assert np.abs(np.diff(across, axis=-1)).mean() < 0.1
    # The ellipse's long axis lies across, then turns by 15 degrees a step.
    ellipse = images[1, 3, :, 5, 5]
    u = np.arange(32) - across[1, 3, :, 5, 5, None]
    v = np.arange(32) - down[1, 3, :, 5, 5, None]
    n = area[1, 3, :, 5, 5]
    uu = (ellipse.sum(-2) * u**2).sum(-1) / n
    vv = (ellipse.sum(-1) * v**2).sum(-1) / n
    uv = np.einsum("nij,ni,nj->n", ellipse, v, u) / n
    angle = np.rad2deg(np.arctan2(2 * uv, uu - vv) / 2)
    assert angle == pytest.approx(15.0 * np.arange(6), abs=5)


@pytest.mark.slow
def test_the_larger_images_are_the_same(data):
    large = load("factors64")
    assert large.image_shape == (SIZES[1], SIZES[1])
    np.testing.assert_array_equal(large.factors.test, data.factors.test)
    # The means of two by two pixels differ from the small image at edges alone.
    small = data.x_test.reshape(-1, 32, 32)
    means = large.x_test.reshape(-1, 32, 2, 32, 2).mean((2, 4))
    assert np.mean(np.abs(means - small) > 128) < 0.01


def test_factors_follow_their_images(data):
    held = hold_out(data, 60)
    assert len(held.x_train) == len(held.factors.train) == 5700
    first = first_of_test(data, 7)
    np.testing.assert_array_equal(first.factors.test, data.factors.test[:7])
    np.testing.assert_array_equal(first.y_test, data.y_test[:7])
    assert len(first.x_test) == 7 and len(first.factors.train) == len(data.x_train)
    own = load("training:factors")
    assert own.factors.test.shape == (0, 5)
    parts = hold_out(own, 100)
    indices = {x.tobytes(): f for x, f in zip(own.x_train, own.factors.train, strict=True)}
    for x, factors in zip(parts.x_test, parts.factors.test, strict=True):
        np.testing.assert_array_equal(indices[x.tobytes()], factors)
