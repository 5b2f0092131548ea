"""PixelCNN and PixelRNN: dependence of outputs on inputs, masses of tiny grids, logits pixel by
pixel, output bias.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logit

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Autoregressive
from elbo_lab.models import pixelcnn, pixelrnn
from elbo_lab.models.base import Given
from elbo_lab.models.networks.recurrent import skew, unskew

pytestmark = pytest.mark.usefixtures("fast_compilation")

LAYERS, FIRST_RADIUS, RADIUS = 2, 2, 1
SIZES = {
    "layers": LAYERS,
    "kernel_size": 2 * RADIUS + 1,
    "first_kernel_size": 2 * FIRST_RADIUS + 1,
    "output_width": 24,
    "embedding_dim": 3,
}
CNN = (pixelcnn.make, pixelcnn.PixelCNNOptions(width=12, **SIZES))
ROW, DIAGONAL = (
    (pixelrnn.make, pixelrnn.PixelRNNOptions(rnn=rnn, width=6, **SIZES)) for rnn in pixelrnn.RNNS
)
NETWORKS = {"cnn": CNN, "row": ROW, "diagonal": DIAGONAL}
SPECS = {
    "binary": Spec("image", (5, 6), 2),
    "grey": Spec("image", (4, 5), 256),
    "colour": Spec("image", (4, 3, 3), 4),
    "codes": Spec("token", (4, 5), 7),
    "row": Spec("token", (6,), 5),
}


def cases(fast: set[tuple[str, str]], kinds: tuple[str, ...] = tuple(SPECS)):
    """A test for each network and kind; all but the fast ones are marked slow."""
    pairs = [
        pytest.param(*pair, marks=() if pair in fast else pytest.mark.slow)
        for pair in itertools.product(NETWORKS, kinds)
    ]
    return pytest.mark.parametrize(("network", "kind"), pairs)


# All values of these are enumerated.
TINY = {
    "binary": Spec("image", (3, 3), 2),
    "colour": Spec("image", (2, 1, 2), 3),
    "codes": Spec("token", (3, 2), 4),
}
NUM_DRAWS = 10_000


def values(spec: Spec, level) -> np.ndarray:
    """Data of a spec from its levels 0, ..., levels - 1."""
    level = np.asarray(level)
    if spec.kind == "token":
        return level.astype(np.int32)
    return (level / (spec.levels - 1)).astype(np.float32)


def draw(spec: Spec, rows: int, seed: int = 0) -> np.ndarray:
    return values(spec, np.random.default_rng(seed).integers(spec.levels, size=(rows, spec.dim)))


@functools.cache
def random_law(network: str, spec: Spec) -> tuple[Autoregressive, dict]:
    """p(x) by a network whose parameters, biases included, are drawn at random; the parameters."""
    make, options = NETWORKS[network]
    model, rng = make(options, spec), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(draw(spec, 4)))
    params = jax.tree.map(lambda p: rng.normal(0, 0.4, p.shape).astype(np.float32), shapes)
    return model.distribution(params, (), Given()), params


def logits_of(law, x) -> jax.Array:
    """[rows, D, levels], or [rows, D, 1] for two levels."""
    return jax.jit(law.logits)(x).reshape(*x.shape, -1)


def within_reach(
    network: str, up: np.ndarray, right: np.ndarray, is_last: np.ndarray
) -> np.ndarray:
    """True for the pixels that an output sees, so many rows above it and columns to its right.

    A pixel that is the last of its row has no features to its right that see it.
    """
    if network == "cnn":
        reach = FIRST_RADIUS + (LAYERS - 1) * RADIUS
        return (np.abs(up) <= reach) & (np.abs(right) <= reach)
    if network == "row":
        # A triangle: each row farther up adds a radius on both sides. The first convolution sees
        # pixels to the right only if it goes up; each LSTM sees some to the left in its own row.
        left = FIRST_RADIUS + (LAYERS + up) * RADIUS
        return (-right <= left) & ((up == 0) | (right <= FIRST_RADIUS + (up - 1) * RADIUS))
    return ~((up == 1) & is_last & (right > FIRST_RADIUS))


@cases({*(("cnn", kind) for kind in SPECS), ("row", "colour"), ("diagonal", "binary")})
def test_each_output_sees_all_earlier_values_within_reach_and_no_other(network, kind):
    spec = SPECS[kind]
    law, _ = random_law(network, spec)
    # Several examples, since a rectifier can hide a change in one. Each has D changed copies: value
    # d of copy d is changed by half of the levels.
    level = np.random.default_rng(0).integers(spec.levels, size=(6, 1, spec.dim))
    changed = (level + max(1, spec.levels // 2) * np.eye(spec.dim, dtype=int)) % spec.levels
    logits = np.asarray(logits_of(law, values(spec, np.concatenate([level, changed], axis=1))))
    # [changed value, output]
    change = np.max(np.abs(logits[:, 1:] - logits[:, :1]), axis=(0, -1))
    height, width, channels = (1, *spec.shape, 1) if kind == "row" else (*spec.shape, 1)[:3]
    row, column, _ = np.unravel_index(np.arange(spec.dim), (height, width, channels))
    is_near = within_reach(
        network, row - row[:, None], column[:, None] - column, column[:, None] == width - 1
    )
    is_seen = np.triu(is_near, k=1)
    np.testing.assert_allclose(change[~is_seen], 0, atol=1e-6)
    assert np.min(change[is_seen]) > 1e-5


@cases({("cnn", "colour")})
def test_pixels_one_by_one_have_the_logits_of_the_whole(network, kind):
    """At and after the value that logits are of, x has arbitrary values, as in `sample`."""
    spec = SPECS[kind]
    law, _ = random_law(network, spec)
    steps = law.steps
    x, other = draw(spec, 2, seed=2)
    num_rows, columns, channels = steps.shape

    def known(number):
        """The values before position `number`, and others from there on."""
        return jnp.where(jnp.arange(spec.dim) < number, x, other)[None]

    def row_logits(state, row):
        first = row * columns * channels

        def pixel_logits(state, column):
            logits = []
            for i in range(channels):
                before = known(first + column * channels + i)
                all_logits, after = steps.pixel(state, before, row, column)
                logits.append(all_logits[0, i])
            return after, jnp.stack(logits)

        state = steps.new_row(state, known(first), row)
        return jax.lax.scan(pixel_logits, state, jnp.arange(columns))

    scan = jax.jit(lambda: jax.lax.scan(row_logits, steps.start(x[None]), jnp.arange(num_rows))[1])
    by_pixels = np.asarray(scan()).reshape(spec.dim, -1)
    np.testing.assert_allclose(by_pixels, logits_of(law, x[None])[0], atol=2e-5)
    by_pixels = by_pixels.astype(np.float64)
    if spec.levels == 2:
        by_pixels = np.concatenate([np.zeros_like(by_pixels), by_pixels], axis=-1)
    level = np.round(np.asarray(x) * (1 if spec.kind == "token" else spec.levels - 1)).astype(int)
    expected = np.take_along_axis(log_softmax(by_pixels, -1), level[:, None], -1).sum()
    np.testing.assert_allclose(jax.jit(law.log_prob)(x), expected, rtol=1e-5)


@cases({("cnn", "colour"), ("row", "colour"), ("diagonal", "binary")}, tuple(TINY))
def test_masses_of_all_images_sum_to_one_and_are_those_of_draws(network, kind):
    spec = TINY[kind]
    law, _ = random_law(network, spec)
    level = np.array(list(itertools.product(range(spec.levels), repeat=spec.dim)))
    mass = np.exp(np.asarray(jax.jit(law.log_prob)(values(spec, level)), np.float64))
    assert abs(mass.sum() - 1) < 1e-5
    draws = jax.jit(lambda key: law.sample(key, (NUM_DRAWS,)))(jax.random.key(0))
    assert np.all(law.support(np.asarray(draws)))
    drawn = np.asarray(draws) * (1 if spec.kind == "token" else spec.levels - 1)
    index = np.round(drawn).astype(int) @ spec.levels ** np.arange(spec.dim)[::-1]
    frequency = np.bincount(index, minlength=len(level)) / NUM_DRAWS
    # A count of one is not rare where the mass is below 1 / NUM_DRAWS.
    error = 4.5 * np.sqrt(mass * (1 - mass) / NUM_DRAWS) + 2 / NUM_DRAWS
    assert np.all(np.abs(frequency - mass) < error)


@pytest.mark.parametrize(
    "kind",
    ["colour", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("binary", "codes"))],
)
def test_output_bias_starts_at_the_frequencies_of_the_training_data(kind):
    spec, (make, options) = TINY[kind], CNN
    x = draw(spec, 5, seed=4)
    mean = np.linspace(0.1, 0.5, spec.dim) if kind == "binary" else None
    bias = jax.jit(make(options, spec).init)(jax.random.key(0), Batch(x), mean)["logits"]["bias"]
    if kind == "binary":
        np.testing.assert_allclose(bias, [logit(0.3)], rtol=1e-5)
        return
    level = np.round(np.asarray(x) * (1 if spec.kind == "token" else spec.levels - 1)).astype(int)
    channels = spec.shape[2] if len(spec.shape) == 3 else 1
    counts = np.array([np.bincount(level[:, c::channels].ravel()) for c in range(channels)]) + 1
    expected = np.log(counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(bias, expected.ravel(), rtol=1e-5)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def by_numpy(network: str, params: dict, x: np.ndarray) -> np.ndarray:
    """Logits of a binary image [H, W] in float64, pixel by pixel by the paper's equations."""
    height, width = x.shape
    params = jax.tree.map(np.float64, params)
    image = 2 * np.float64(x) - 1

    def at(array, i, j):
        """The features at a pixel, zero outside of the image."""
        is_inside = 0 <= i < height and 0 <= j < width
        return array[i, j] if is_inside else np.zeros(array.shape[2:])

    def convolved(layer, array, i, j, rows, columns):
        """The sum over so many rows above (and the own one, if the kernel has it) and columns."""
        kernel = layer["kernel"]
        total = layer["bias"].copy()
        for m, row in enumerate(rows):
            for n, column in enumerate(columns):
                total += at(array, i + row, j + column) @ kernel[m, n]
        return total

    def lstm(gates, c):
        o, f, i, g = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def scanned(layer, array, row_radius):
        """h of an LSTM, visiting pixels in raster order."""
        size = layer["kernel"].shape[-2]
        h, c = np.zeros((2, height, width, size))
        for i, j in itertools.product(range(height), range(width)):
            left = range(-row_radius, 1)
            gates = convolved(layer["gates"]["left"], array, i, j, [0], left)
            if network == "row":
                for n, column in enumerate(range(-row_radius, row_radius + 1)):
                    gates += at(h, i - 1, j + column) @ layer["kernel"][n]
                before = at(c, i - 1, j)
            else:
                up, own = layer["kernel"]
                gates += at(h, i - 1, j) @ up + at(h, i, j - 1) @ own
                before = at(c, i, j - 1)
            h[i, j], c[i, j] = lstm(gates, before)
        return h

    near = range(-FIRST_RADIUS, FIRST_RADIUS + 1)
    features = np.zeros((height, width, params["above"]["bias"].size))
    for i, j in itertools.product(range(height), range(width)):
        features[i, j] = convolved(
            params["above"], image[..., None], i, j, range(-FIRST_RADIUS, 0), near
        )
        # The weight of the pixel itself, the last, is masked.
        features[i, j] += convolved(
            params["left"], image[..., None], i, j, [0], range(-FIRST_RADIUS, 0)
        )
    for k in range(LAYERS):
        layer = params[f"recurrent_{k}"]
        if network == "row":
            h = scanned(layer["lstm"], features, RADIUS)
        else:
            h = scanned(layer["lstm"]["left"], features, 0)
            right = scanned(layer["lstm"]["right"], features[:, ::-1], 0)[:, ::-1]
            h[1:] += right[:-1]
        features = features + h @ layer["out"]["kernel"] + layer["out"]["bias"]
    for name in ("hidden", "logits"):
        features = np.maximum(features, 0) @ params[name]["kernel"] + params[name]["bias"]
    return features[..., 0]


@pytest.mark.parametrize("network", ["row", "diagonal"])
def test_lstms_are_those_of_the_paper(network):
    spec = SPECS["binary"]
    law, params = random_law(network, spec)
    x = draw(spec, 3, seed=5)
    expected = [by_numpy(network, params, image.reshape(spec.shape)).ravel() for image in x]
    np.testing.assert_allclose(logits_of(law, x)[..., 0], expected, atol=2e-5)


def test_rows_are_moved_apart_and_back():
    x = np.arange(1, 25).reshape(2, 3, 2, 2)
    skewed = np.asarray(skew(x))
    assert skewed.shape == (2, 3, 4, 2) and np.count_nonzero(skewed) == 24
    for i in range(3):
        np.testing.assert_array_equal(skewed[:, i, i : i + 2], x[:, i])
    np.testing.assert_array_equal(unskew(skewed, 2), x)


@pytest.mark.parametrize("family", [pixelcnn, pixelrnn])
@pytest.mark.parametrize(
    "changes, spec, message",
    [
        ({}, Spec("real", (4, 4), None), "got real numbers"),
        ({}, Spec("image", (4, 4), None), "got images of real numbers, which binarization=dynamic"),
        ({}, Spec("image", (2, 4, 4, 3), 256), "these have the shape"),
        ({"kernel_size": 4}, SPECS["binary"], "kernel_size must be odd; got 4"),
        ({"first_kernel_size": 6}, SPECS["binary"], "first_kernel_size must be odd; got 6"),
        ({"width": 2}, SPECS["colour"], "width must be at least the number of channels, 3; got 2"),
    ],
)
def test_unsupported_data_and_options_are_refused(family, changes, spec, message):
    options = {pixelcnn: pixelcnn.PixelCNNOptions, pixelrnn: pixelrnn.PixelRNNOptions}[family]
    with pytest.raises(ValueError, match=message):
        family.make(options(**changes), spec)
