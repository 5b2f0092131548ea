"""Measurements of a stored run by name."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp

from elbo_lab.evaluation import measures


def test_two_names_of_one_measurement_measure_once():
    calls = []

    def measure(key, params, stats, batch):
        calls.append(key)
        return {"elbo": jnp.zeros(3)}

    combined = measures.combined(["quantities", "text"], SimpleNamespace(measure=measure))
    assert combined(jax.random.key(0), (), (), None).keys() == {"elbo"}
    assert len(calls) == 1
