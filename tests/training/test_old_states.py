"""States that the previous version saved, with the terms of a failure as bits of an integer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import training
from elbo_lab.training import old_states

TERMS = ("bound", "kl", "reconstruction")


class Failure(NamedTuple):
    """`training.Failure` of the previous version."""

    step: jax.Array
    terms: jax.Array


def failed_by_bits(bits: int) -> list[str]:
    """Names of the set bits: terms in alphabetical order, the gradient, the parameters."""
    checked = [*sorted(TERMS), "gradient", "parameters"]
    return [name for i, name in enumerate(checked) if bits >> i & 1]


def state(failure) -> training.TrainState:
    return training.TrainState(jnp.int32(8), {"w": jnp.ones(3)}, (jnp.zeros(3),), failure)


def test_every_pattern_of_bits_names_the_same_terms():
    old = state(Failure(jnp.arange(32) - 1, jnp.arange(32)))  # replicate r with the bits of r
    new = old_states.migrated(old, TERMS)
    assert jax.tree.structure(new) == jax.tree.structure(state(training.Failure.none(TERMS)))
    np.testing.assert_array_equal(new.failure.step, old.failure.step)
    for r in range(32):
        is_finite = {name: values[r] for name, values in new.failure.is_finite.items()}
        assert training.failed_terms(is_finite) == failed_by_bits(r)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_a_migrated_state_has_the_types_of_a_new_one(lead):
    none = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, lead), training.Failure.none(TERMS))
    old = Failure(jnp.full(lead, -1, jnp.int32), jnp.zeros(lead, jnp.int32))
    new = old_states.migrated(state(old), TERMS)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state(none)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)
    like = old_states.state_like(state(none))
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(like)]
    assert ".failure.terms" in names and len(names) == len(jax.tree.leaves(state(old)))
    assert old_states.migrated(new, TERMS) is new


def test_a_state_without_averaged_weights_has_the_leaves_of_states_that_had_no_such_field():
    whole = state(training.Failure.none(TERMS))
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(whole)]
    assert whole.average == () and not any("average" in name for name in names)
