"""Laws of every bound, as a function of log-weights, and values against NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from elbo_lab.losses import bounds

M, K, B = 2, 3, 5

BOUNDS = {
    "elbo": bounds.elbo,
    "iwae": bounds.iwae,
    "miwae": functools.partial(bounds.miwae, num_outer=M),
}
# Gradient of each bound at log-weights [M * K], float64.
GRADIENTS = {
    "elbo": lambda log_w: np.full(log_w.shape, 1 / len(log_w)),
    "iwae": lambda log_w: softmax(log_w),
    "miwae": lambda log_w: (softmax(log_w.reshape(M, -1), axis=1) / M).ravel(),
}
VALUES = {
    "elbo": lambda log_w: np.mean(log_w, axis=0),
    "iwae": lambda log_w: logsumexp(log_w, axis=0) - np.log(len(log_w)),
    "miwae": lambda log_w: np.mean(
        [logsumexp(group, axis=0) - np.log(len(group)) for group in np.split(log_w, M)], axis=0
    ),
}

# Compiled once per shape: operation by operation, each would be compiled on its own.
COMPILED = {name: jax.jit(bound) for name, bound in BOUNDS.items()}
COMPILED_VJP = {
    name: jax.jit(
        jax.value_and_grad(lambda log_w, f=bound: (jnp.sum(value := f(log_w)), value), has_aux=True)
    )
    for name, bound in BOUNDS.items()
}
MIWAE = jax.jit(bounds.miwae, static_argnames="num_outer")

every_bound = pytest.mark.parametrize("name", BOUNDS)


@pytest.fixture(autouse=True)
def ranks_are_never_promoted():
    with jax.numpy_rank_promotion("raise"):
        yield


def random_log_w(seed: int = 0, scale: float = 3.0, shape=(M * K, B)) -> np.ndarray:
    """Log-weights as of images: around -90 nats; exactly representable in float32."""
    draws = -90 + scale * np.random.default_rng(seed).normal(size=shape)
    return draws.astype(np.float32).astype(np.float64)


def float32(values) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


def value_and_gradient(name: str, log_w) -> tuple[np.ndarray, np.ndarray]:
    (_, value), gradient = COMPILED_VJP[name](float32(log_w))
    return np.asarray(value), np.asarray(gradient)


# Values near 90 nats carry rounding errors of a few units in the last place, 7.6e-6 each.
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=4e-5)


@every_bound
def test_equals_float64_formula(name):
    log_w = random_log_w()
    close(COMPILED[name](float32(log_w)), VALUES[name](log_w))


@every_bound
def test_gradient_equals_float64_weights(name):
    log_w = random_log_w(shape=(M * K,))
    _, gradient = value_and_gradient(name, log_w)
    # The softmax's exponent has the absolute rounding error of its argument, about 1e-5.
    np.testing.assert_allclose(gradient, GRADIENTS[name](log_w), rtol=5e-5, atol=1e-7)
    np.testing.assert_allclose(np.sum(gradient), 1, rtol=1e-5)


@every_bound
def test_forward_and_reverse_mode_agree(name):
    log_w = float32(random_log_w(shape=(M * K,)))
    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(BOUNDS[name]))(log_w), value_and_gradient(name, log_w)[1], rtol=1e-5
    )


@every_bound
def test_jit_changes_nothing(name):
    log_w = float32(random_log_w())
    close(COMPILED[name](log_w), BOUNDS[name](log_w))


@every_bound
def test_batch_equals_vmap_equals_loop(name):
    log_w, bound = float32(random_log_w()), COMPILED[name]
    looped = jnp.stack([bound(log_w[:, i]) for i in range(B)])
    close(jax.vmap(bound, in_axes=1)(log_w), looped)
    close(bound(log_w), looped)


@every_bound
def test_two_batch_dimensions(name):
    log_w = random_log_w(shape=(M * K, B, 2))
    value = COMPILED[name](float32(log_w))
    assert value.shape == (B, 2)
    close(value, VALUES[name](log_w))


@every_bound
@pytest.mark.parametrize("constant", [0.0, -87.5, 1e4, -1e4])
def test_constant_log_weights_give_the_constant(name, constant):
    value = COMPILED[name](jnp.full((M * K, B), constant, jnp.float32))
    # Two roundings to float32, half a unit in the last place each.
    np.testing.assert_allclose(value, constant, rtol=2.4e-7, atol=2.4e-7)


@every_bound
def test_permutation_invariance(name):
    log_w = random_log_w()
    rng = np.random.default_rng(1)
    if name == "miwae":  # Within each group, and of whole groups.
        groups = np.split(log_w, M)[::-1]
        permuted = np.concatenate([rng.permutation(group, axis=0) for group in groups])
    else:
        permuted = rng.permutation(log_w, axis=0)
    assert np.any(permuted != log_w)
    close(COMPILED[name](float32(permuted)), COMPILED[name](float32(log_w)))


@every_bound
@pytest.mark.parametrize("shift", [64.0, -512.0])
def test_shift_equivariance(name, shift):
    log_w = random_log_w()
    value = COMPILED[name](float32(log_w + shift))
    close(value, VALUES[name](log_w) + shift, atol=4e-5 * (1 + abs(shift) / 90))


def test_one_draw_makes_all_bounds_equal():
    log_w = float32(random_log_w(shape=(1, B)))
    values = COMPILED["elbo"](log_w), COMPILED["iwae"](log_w), MIWAE(log_w, num_outer=1)
    for value in values:
        np.testing.assert_array_equal(value, log_w[0])


def test_miwae_with_one_group_is_iwae_and_with_one_draw_is_elbo():
    log_w = float32(random_log_w())
    close(MIWAE(log_w, num_outer=1), COMPILED["iwae"](log_w))
    close(MIWAE(log_w, num_outer=M * K), COMPILED["elbo"](log_w))


def test_defect_2_miwae_takes_the_logarithm_over_k_and_the_mean_over_m():
    # Groups (0, 0, log 4) and (log 9, log 9, 0), by hand: means of weights 2 and 19/3.
    weights = np.array([1, 1, 4, 9, 9, 1])
    expected = (np.log(6 / 3) + np.log(19 / 3)) / 2
    swapped = np.mean(np.log([(1 + 9) / 2, (1 + 9) / 2, (4 + 1) / 2]))
    assert abs(expected - swapped) > 0.05
    value = MIWAE(float32(np.log(weights)), num_outer=2)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("num_outer", [2, 3, 4])
def test_miwae_equals_float64_formula_for_each_division(num_outer):
    log_w = random_log_w(shape=(12, B))
    grouped = log_w.reshape(num_outer, 12 // num_outer, B)
    inner = logsumexp(grouped, axis=1) - np.log(12 // num_outer)
    close(MIWAE(float32(log_w), num_outer=num_outer), inner.mean(axis=0))


def test_defect_1_iwae_is_not_the_weighted_mean_of_log_weights():
    log_w = random_log_w()
    value = COMPILED["iwae"](float32(log_w))
    wrong = np.sum(softmax(log_w, axis=0) * log_w, axis=0)
    # log-mean-exp = weighted mean + entropy of the weights - log K: lower by up to log K.
    entropy = -np.sum(softmax(log_w, axis=0) * np.log(softmax(log_w, axis=0)), axis=0)
    close(value, wrong + entropy - np.log(M * K))
    assert np.all(wrong - np.asarray(value) > 0.1)


def test_defect_4_the_best_draw_weighs_most():
    log_w = float32([-95.0, -90.0, -100.0])
    gradient = jax.jit(jax.grad(bounds.iwae))(log_w)
    assert np.argmax(gradient) == 1 and np.argmin(gradient) == 2


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_order_on_the_same_weights(scale):
    log_w = float32(random_log_w(scale=scale, shape=(M * K, 200)))
    elbo, miwae, iwae = (COMPILED[name](log_w) for name in ("elbo", "miwae", "iwae"))
    rounding = 4e-5
    assert jnp.all(elbo <= miwae + rounding) and jnp.all(miwae <= iwae + rounding)


EXTREME = {
    "huge": [1e4, 0.0, -1e4, 1e4, -1e4, 1.0],
    "all_high": [1e4, 1e4 + 1, 1e4 - 1, 1e4, 1e4, 1e4],
    "all_low": [-1e4, -1e4 + 1, -1e4 - 1, -1e4, -1e4, -1e4],
    "one_dominates": [-1e4, -1e4, 0.0, 0.0, -1e4, -1e4],
}


@every_bound
@pytest.mark.parametrize("case", EXTREME)
def test_extreme_log_weights(name, case):
    log_w = np.array(EXTREME[case])
    value, gradient = value_and_gradient(name, log_w)
    np.testing.assert_allclose(value, VALUES[name](log_w), rtol=3e-7, atol=1e-6)
    # At 1e4 the argument of the softmax is rounded to 1e-3 at worst (logsumexp's subtraction).
    np.testing.assert_allclose(gradient, GRADIENTS[name](log_w), rtol=2e-3, atol=1e-30)


@every_bound
def test_some_draws_of_zero_weight(name):
    log_w = np.array([0.0, -np.inf, 1.0, 2.0, -1.0, -np.inf])
    value, gradient = value_and_gradient(name, log_w)
    np.testing.assert_allclose(value, VALUES[name](log_w), rtol=1e-6)
    np.testing.assert_allclose(gradient, GRADIENTS[name](log_w), rtol=1e-5)


@every_bound
def test_all_draws_of_zero_weight(name):
    value, gradient = value_and_gradient(name, np.full((M * K, B), -np.inf))
    np.testing.assert_array_equal(value, -np.inf)
    np.testing.assert_array_equal(gradient, np.full((M * K, B), 1 / (M * K), np.float32))


def test_miwae_with_one_group_of_zero_weights():
    log_w = np.array([-np.inf] * K + [0.0, 1.0, 2.0])
    value, gradient = value_and_gradient("miwae", log_w)
    assert value == -jnp.inf
    expected = np.concatenate([np.full(K, 1 / K), softmax([0.0, 1.0, 2.0])]) / M
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_an_example_of_zero_weights_leaves_the_others_alone():
    log_w = random_log_w()
    log_w[:, 1] = -np.inf
    _, gradient = value_and_gradient("iwae", log_w)
    others = np.delete(np.arange(B), 1)
    np.testing.assert_allclose(gradient[:, others], softmax(log_w[:, others], axis=0), rtol=5e-5)
    np.testing.assert_allclose(gradient[:, 1], 1 / (M * K), rtol=1e-6)


@every_bound
def test_one_draw_at_any_size(name):
    bound = functools.partial(bounds.miwae, num_outer=1) if name == "miwae" else BOUNDS[name]
    log_w = float32([0.0, 1e4, -1e4, -np.inf])
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(bound)))(log_w[:, None])
    np.testing.assert_array_equal(value, log_w)
    np.testing.assert_array_equal(gradient, np.ones((4, 1)))


@every_bound
def test_nan_is_not_hidden(name):
    log_w = float32([0.0, jnp.nan, 1.0, -jnp.inf, 0.0, 0.0])
    assert jnp.isnan(COMPILED[name](log_w))


@every_bound
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_accumulates_in_float32(name, dtype):
    log_w = jnp.asarray(random_log_w(shape=(M * 500, B)), dtype)
    (_, value), gradient = COMPILED_VJP[name](log_w)
    assert value.dtype == jnp.float32
    # Exact sums of the rounded inputs, not sums rounded to half precision (whose steps near 90
    # are 0.06 and 0.5 nats).
    close(value, VALUES[name](np.asarray(log_w, np.float64)), atol=1e-4)
    assert gradient.dtype == dtype and jnp.all(jnp.isfinite(gradient))


@every_bound
def test_float64_stays(name):
    with jax.enable_x64(True):
        log_w = random_log_w()
        value = COMPILED[name](jnp.asarray(log_w))
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, VALUES[name](log_w), rtol=1e-14)


@pytest.mark.parametrize("num_outer", [0, -1, -2, 4, 7])
def test_num_outer_must_divide_the_number_of_log_weights(num_outer):
    with pytest.raises(ValueError, match=rf"num_outer.* 6; got {num_outer}\."):
        bounds.miwae(jnp.zeros((6, B)), num_outer=num_outer)
