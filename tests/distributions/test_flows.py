"""Flows against dense Jacobians, quadrature and peer libraries, in float64."""

import functools
import itertools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions.flows import InverseAutoregressiveTransform

from elbo_lab.distributions import Flow
from elbo_lab.distributions.splines import LEAST_BIN, LEAST_SLOPE, rational_quadratic
from elbo_lab.models import flows
from elbo_lab.models.networks import gaussian

pytestmark = pytest.mark.usefixtures("fast_compilation")

STEPS = {"iaf": flows.iaf} | flows.PRIOR_STEPS
# Integrals that the fast tests compute too; the others take longer to compile.
FAST = {("affine", 2), ("maf", 2)}
WIDTH, BATCH = 5, 2
BINS, BOUND = 4, 2.0


def drawn(tree, seed, scale=0.5):
    """A tree of the same shapes whose numbers are drawn anew."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape)), tree)


def maps_and_flow(name, size, depth=2, scale=0.5):
    """The steps of a flow with drawn parameters, with a context for each of two examples where the
    step takes one, and the flow.
    """
    step = STEPS[name](size, (WIDTH,), "tanh")
    shapes = jax.eval_shape(functools.partial(flows.init, step, depth), jax.random.key(0))
    params = drawn(shapes, 1, scale)
    batch = (BATCH,) if name == "iaf" else ()
    contexts = depth * [None]
    if name == "iaf":
        contexts = drawn([jnp.zeros((*batch, WIDTH))] * depth, 2)
    base = gaussian(jnp.zeros((*batch, size)), jnp.ones((*batch, size)))
    maps = flows.bijections(step, params, contexts)
    return maps, Flow(base, maps)


@pytest.mark.parametrize(
    "name", ["iaf", *(pytest.param(name, marks=pytest.mark.slow) for name in flows.PRIOR_STEPS)]
)
def test_jacobians_and_inverses(name):
    """One map after the other at two points; maf's forward and iaf's inverse are searches."""
    size = 3
    with jax.enable_x64(True):
        y = np.random.default_rng(3).normal(size=(BATCH, size))

        @jax.jit
        def compute(y):
            maps, _ = maps_and_flow(name, size)
            by_map = []
            for bijection in maps:
                z, log_det = bijection.forward(y)
                back, log_det_back = bijection.inverse(z)
                jacobians = [
                    jax.jacobian(lambda v, function=function: function(v)[0])(at)
                    for function, at in ((bijection.forward, y), (bijection.inverse, z))
                ]
                by_map.append((y, back, log_det, log_det_back, *jacobians))
                y = z
            return by_map

        for point, back, log_det, log_det_back, jacobian, jacobian_back in compute(y):
            np.testing.assert_allclose(back, point, atol=1e-12)
            np.testing.assert_allclose(log_det_back, -log_det, atol=1e-12)
            for i in range(BATCH):
                own = np.asarray(jacobian)[i, :, i]
                np.testing.assert_allclose(log_det[i], np.linalg.slogdet(own)[1], atol=1e-12)
                inverse = np.asarray(jacobian_back)[i, :, i]
                np.testing.assert_allclose(inverse @ own, np.eye(size), atol=1e-12)
                assert not np.any(np.asarray(jacobian)[i, :, 1 - i])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow)
        for pair in itertools.product(STEPS, [1, 2])
    ],
)
def test_a_density_integrates_to_one_and_is_that_of_its_draws(name, size):
    # Splines are the identity outside of [-5, 5]; within, their second derivative jumps.
    end, count = (6 if name == "spline" else 20), (10_001 if size == 1 else 501)
    points = np.linspace(-end, end, count)
    width, number = points[1] - points[0], 2000
    grid = np.stack(np.meshgrid(*size * [points], indexing="ij"), axis=-1)
    with jax.enable_x64(True):

        @jax.jit
        def compute(grid, key):
            _, flow = maps_and_flow(name, size, scale=0.2 if name == "spline" else 0.5)
            z, log_prob = flow.sample_and_log_prob(key, (number,))
            grid = grid.reshape(-1, *len(flow.batch_shape) * (1,), size)
            return flow.log_prob(grid), z, log_prob, flow.log_prob(z)

        log_density, z, log_prob, again = jax.tree.map(np.asarray, compute(grid, jax.random.key(0)))
    density = np.exp(log_density.reshape(len(log_density), -1)) * width**size
    np.testing.assert_allclose(
        density.sum(axis=0), 1, atol=1e-4 if (name, size) == ("spline", 2) else 1e-5
    )
    np.testing.assert_allclose(log_prob, again, rtol=1e-9, atol=1e-9)
    cells = grid.reshape(-1, size)
    mean = np.einsum("gb,gl->bl", density, cells)
    variance = np.einsum("gb,gl->bl", density, cells**2) - mean**2
    z = z.reshape(number, -1, size)
    assert np.all(np.abs(z.mean(axis=0) - mean) <= 4 * np.sqrt(variance / number))
    # E log p of draws is minus the entropy, which quadrature gives too.
    log_density = log_density.reshape(density.shape)
    entropy = -np.sum(density * np.maximum(log_density, -700), axis=0)
    log_prob = log_prob.reshape(number, -1)
    error = log_prob.std(axis=0) / np.sqrt(number)
    assert np.all(np.abs(log_prob.mean(axis=0) + entropy) <= 4 * error)


@pytest.mark.slow
def test_splines_are_distrax_ones():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.uniform(-2.5, 2.5, size=(6, 3)), [[-2.0, 0.0, 2.0]]])
    raw = rng.normal(size=(3, 3 * BINS - 1))
    with jax.enable_x64(True):
        # Distrax has two more slopes, which `boundary_slopes` overwrites.
        padded = np.insert(np.concatenate([raw, np.zeros((3, 1))], axis=-1), 2 * BINS, 0, axis=-1)
        peer = distrax.RationalQuadraticSpline(
            jnp.asarray(padded),
            -BOUND,
            BOUND,
            boundary_slopes="identity",
            min_bin_size=2 * BOUND * LEAST_BIN,
            min_knot_slope=LEAST_SLOPE,
        )

        @jax.jit
        def compute(x, raw):
            y, log_slope = rational_quadratic(x, raw, BINS, BOUND)
            return y, log_slope, rational_quadratic(y, raw, BINS, BOUND, is_inverse=True)

        y, log_slope, (back, log_slope_back) = compute(x, np.broadcast_to(raw, (7, *raw.shape)))
        expected, expected_slope = peer.forward_and_log_det(jnp.asarray(x))
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(log_slope, expected_slope, atol=1e-12)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(log_slope_back, -log_slope, atol=1e-10)


def test_steep_splines_are_inverted_in_float32():
    """Bins up to a thousand times as steep as others, against float64."""
    num_bins, bound, number = 8, 5.0, 50_000
    rng = np.random.default_rng(8)
    raw = np.float32(4 * rng.normal(size=(number, 3 * num_bins - 1)))
    y = np.float32(rng.uniform(-bound, bound, size=number))

    @jax.jit
    def inverse(y, raw):
        x, log_slope = rational_quadratic(y, raw, num_bins, bound, is_inverse=True)
        return jnp.sum(x + log_slope), log_slope

    gradient = jax.grad(inverse, argnums=(0, 1), has_aux=True)
    gradients, log_slope = gradient(y, raw)
    assert all(np.all(np.isfinite(leaf)) for leaf in gradients)
    with jax.enable_x64(True):
        _, expected = inverse(np.float64(y), np.float64(raw))
    # A knot is rounded by 2e-7, 2e-5 of the narrowest bin, in which a slope changes a thousandfold.
    np.testing.assert_allclose(log_slope, expected, atol=0.1)


@pytest.mark.slow
def test_an_inverse_autoregressive_flow_is_numpyros():
    size = 4
    with jax.enable_x64(True):
        step = flows.maf(size, (WIDTH,), "tanh")
        start = jax.eval_shape(functools.partial(flows.init, step, 1), jax.random.key(0))
        network = flows.MADE((WIDTH,), (0.0, 0.0))
        params = drawn(start, 5)["step_1"]
        base = gaussian(jnp.zeros(size), jnp.ones(size))

        def arn(y):
            shift, raw = network.apply({"params": params}, y)
            return shift, flows.bounded(raw)

        peer = dist.TransformedDistribution(base, InverseAutoregressiveTransform(arn))
        # The inverse of the masked autoregressive step is the inverse autoregressive one.
        own = Flow(base, [flows.inverted(step.bijection(params, None))])
        z = own.sample(jax.random.key(1), (3,))
        np.testing.assert_allclose(z, peer.sample(jax.random.key(1), (3,)), rtol=1e-12)
        np.testing.assert_allclose(own.log_prob(z), peer.log_prob(z), rtol=1e-12)


def test_outputs_depend_on_earlier_values_and_on_all_of_the_context():
    size, width = 4, 7
    network = flows.MADE((width, 6), (0.0, 1.0))
    x, context = np.random.default_rng(6).normal(size=(2, 7))[:, :size], np.ones(width)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x[0], context)
    params = drawn(shapes, 7, scale=1.0)

    @jax.jit
    def jacobians(x, context):
        return jax.jacobian(network.apply, argnums=(1, 2))(params, x, context)

    for by_x, by_context in jacobians(jnp.float32(x[0]), jnp.float32(context)):
        np.testing.assert_array_equal(np.asarray(by_x) != 0, np.tri(size, k=-1, dtype=bool))
        assert np.all(np.any(np.asarray(by_context) != 0, axis=1))


def test_a_flow_has_no_mean():
    _, flow = maps_and_flow("affine", 3)
    with pytest.raises(NotImplementedError):
        _ = flow.mean
