"""Learning-rate schedules against their definitions, in Python integers and floats."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import schedules


def factors(name: str, total: int) -> np.ndarray:
    """The factor at each step, jitted on int32 steps as in the training loop."""
    schedule = schedules.LR_SCHEDULES[name](total)
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(total, dtype=jnp.int32)))


@pytest.mark.parametrize("passes_to_steps", [1, 10])
def test_burda_has_eight_stages_of_3_to_the_i_passes(passes_to_steps):
    expected = [10 ** (-i / 7) for i in range(8) for _ in range(3**i * passes_to_steps)]
    # 1 + 3 + ... + 2187 = 3280 passes.
    assert len(expected) == 3280 * passes_to_steps
    np.testing.assert_allclose(factors("burda", len(expected)), expected, rtol=1e-6)


@pytest.mark.parametrize("total", [50_000, 4_999])
def test_burda_scales_to_any_length(total):
    stages = np.round(-7 * np.log10(factors("burda", total))).astype(int)
    assert np.all(np.diff(stages) >= 0)
    counts = np.bincount(stages, minlength=8)
    shares = np.array([3**i / 3280 for i in range(8)])
    assert np.all(np.abs(counts - shares * total) <= 1)


def test_cosine_falls_from_one_through_a_half_to_zero():
    steps = jnp.arange(1500, dtype=jnp.int32)
    values = jax.jit(jax.vmap(schedules.LR_SCHEDULES["cosine"](1000)))(steps)
    expected = [0.5 * (1 + np.cos(np.pi * min(step / 1000, 1))) for step in range(1500)]
    assert values[0] == 1
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert np.all(np.diff(values) <= 0)


def test_constant_is_one():
    np.testing.assert_array_equal(factors("constant", 17), np.ones(17, np.float32))


class TestOneStep(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_factors_are_float32_scalars_that_start_at_one(self):
        for schedule in schedules.LR_SCHEDULES.values():
            factor = self.variant(schedule(10))(jnp.int32(0))
            chex.assert_trees_all_equal(factor, jnp.float32(1), strict=True)

    @chex.variants(with_jit=True, without_jit=True)
    def test_burda_ends_at_a_tenth(self):
        factor = self.variant(schedules.burda(3280))(jnp.int32(3279))
        assert float(factor) == pytest.approx(0.1)


# Courses of a hyper-parameter.


def values(text: str, number: int, total: int = 1000) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(schedules.course(text, total)))(jnp.arange(number)))


def test_a_linear_course_rises_and_stays():
    expected = [min(step / 4, 1) * 3 - 1 for step in range(8)]
    np.testing.assert_allclose(values("linear:-1:2:4", 8), expected, rtol=1e-6)


def test_a_cosine_course_follows_half_a_wave_and_stays():
    expected = [1 + (1 - np.cos(np.pi * min(step / 4, 1))) / 2 for step in range(8)]
    np.testing.assert_allclose(values("cosine:1:2:4", 8), expected, rtol=1e-6)


def test_a_cyclical_course_rises_in_the_first_half_of_each_period():
    expected = [0, 0.25, 0.5, 0.75, 1, 1, 1, 1] * 2
    np.testing.assert_allclose(values("cyclical:0:1:8", 16), expected, rtol=1e-6)


@pytest.mark.parametrize(("total", "steps"), [(20, 5), (40, 10), (2, 1)])
def test_the_length_of_a_course_as_a_share_of_the_run(total, steps):
    expected = [min(step / steps, 1) for step in range(total)]
    np.testing.assert_allclose(values("linear:0:1:25%", total, total), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "linear",
        "linear:0:1",
        "linear:0:1:0",
        "steep:0:1:5",
        "linear:0:1:5:6",
        "linear:0:1:0%",
        "linear:0:1:101%",
        "linear:0:1:nan%",
        "linear:0:1:%",
        "linear:0:1%:5",
    ],
)
def test_invalid_courses_are_refused(text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        schedules.course(text, 100)


@pytest.mark.parametrize("name", schedules.COURSES)
def test_courses_are_float32_scalars(name):
    value = schedules.course(f"{name}:0:1:10", 100)(jnp.int32(3))
    assert value.shape == ()
    assert value.dtype == jnp.float32
