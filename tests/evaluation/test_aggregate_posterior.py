"""The measure of a whole split: its blocks and windows against loops, for every form of q(z|x)."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab.data import Batch
from elbo_lab.distributions import BernoulliVector, Chain
from elbo_lab.evaluation import aggregate_posterior, information
from elbo_lab.losses.posteriors import sample_from
from tests.evaluation.test_information import by_definition

NUMBER, DIM = 23, 3


def diagonal(x):
    return dist.Normal(1.5 * x, 0.5 + 0.1 * x**2).to_event(1)


def full(x):
    tril = jnp.eye(DIM) + 0.3 * jnp.tril(x[..., None] * jnp.ones(DIM), -1)
    return dist.MultivariateNormal(x, scale_tril=tril)


def lowrank(x):
    return dist.LowRankMultivariateNormal(x, 0.5 * x[..., None], jnp.ones_like(x))


def binary(x):
    return BernoulliVector(2 * x)


def layered(x):
    return Chain(diagonal(x), [lambda z: dist.Normal(jnp.sin(z), 0.5).to_event(1)])


def normal_prior(size=DIM):
    return dist.Normal(jnp.zeros(size), jnp.ones(size)).to_event(1)


PRIORS = {
    binary: BernoulliVector(jnp.array([0.5, 0.0, -1.0])),
    layered: Chain(
        normal_prior(), [lambda z: dist.Normal(0.5 * z, 1.0).to_event(1)], downwards=True
    ),
}


def method_of(posterior):
    return SimpleNamespace(
        posterior=lambda params, stats, batch: posterior(batch.x),
        prior=lambda params, stats, given: PRIORS.get(posterior, normal_prior()),
        decode=lambda params, stats, z, given: dist.Normal(
            z[0] if isinstance(z, tuple) else z, 0.7
        ).to_event(1),
    )


def chunk_rows(index: int, chunk: int) -> np.ndarray:
    return np.minimum(index * chunk + np.arange(chunk), NUMBER - 1)


@pytest.mark.slow
@pytest.mark.parametrize("posterior", [diagonal, full, lowrank, binary, layered])
def test_blocks_and_windows_are_those_of_loops(posterior, monkeypatch):
    monkeypatch.setattr(aggregate_posterior, "CHUNK", 5)
    monkeypatch.setattr(aggregate_posterior, "ROW_CHUNKS", 2)
    method, size = method_of(posterior), 9
    x = jnp.asarray(np.random.default_rng(0).normal(size=(NUMBER, DIM)), jnp.float32)
    measure = aggregate_posterior.make_measure(method, size)
    key = jax.random.key(3)
    values = jax.device_get(jax.jit(measure)(jax.random.clone(key), (), (), Batch(x)))
    parts, model_parts = [], []
    for index in range(5):
        own = Batch(x[chunk_rows(index, 5)])
        keys = jax.random.split(jax.random.fold_in(jax.random.clone(key), index), 3)
        parts.append(sample_from(posterior(own.x), keys[0], ()))
        z = sample_from(method.prior((), (), None), keys[1], (5,))
        of_x = sample_from(method.decode((), (), z, None), keys[2], ())
        ratio = posterior(of_x).log_prob(z) - method.prior((), (), None).log_prob(z)
        model_parts.append(ratio)
    z = jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[:NUMBER], *parts)
    model = np.concatenate(model_parts)[:NUMBER]
    np.testing.assert_allclose(values["model_information"], model, rtol=1e-4, atol=1e-4)
    rate = posterior(x).log_prob(z) - method.prior((), (), None).log_prob(z)
    np.testing.assert_allclose(values["information_rate"], rate, rtol=1e-4, atol=1e-4)
    # All layers: those above the lowest add the same number to every log q(z_i|x_j).
    expand = jax.tree.map(lambda array: array[:, None], z)
    log_q = np.float64(posterior(x).log_prob(expand))
    for column, some in enumerate(information.sizes(size)):
        rows = []
        for i in range(NUMBER):
            members = (i + np.arange(some)) % NUMBER
            square = np.zeros((some, some))
            square[0] = log_q[i, members]
            rows.append(by_definition(square)[0])
        np.testing.assert_allclose(
            values["information_by_size"][:, column], rows, rtol=2e-4, atol=1e-3
        )
    assert information.sizes(size) == (4, 9)
    last = values["information_by_size"][:, -1]
    names = ("information", "information_corrected", "information_loo")
    np.testing.assert_array_equal(np.stack([values[name] for name in names], axis=1), last)
    np.testing.assert_allclose(values["aggregate_kl"], rate - last[:, 0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        values["aggregate_kl_corrected"], rate - last[:, 1], rtol=1e-4, atol=1e-3
    )


@pytest.mark.slow
def test_without_the_models_own_information_nothing_is_decoded():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(NUMBER, DIM)), jnp.float32)
    method = method_of(diagonal)
    expected, values = (
        jax.jit(measure)(jax.random.key(3), (), (), Batch(x))
        for measure in (
            aggregate_posterior.make_measure(method),
            aggregate_posterior.make_measure(
                SimpleNamespace(**vars(method) | {"decode": None}), with_model=False
            ),
        )
    )
    assert set(expected) - set(values) == {"model_information"}
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def linear(coupling: np.ndarray, noise: float):
    """A method with p(z) = N(0, I), p(x|z) = N(W z, s^2 I) and its exact p(z|x) as q(z|x)."""
    data_dim, latent_dim = coupling.shape
    precision = np.eye(latent_dim) + coupling.T @ coupling / noise
    covariance = np.linalg.inv(precision)
    slope = jnp.asarray(covariance @ coupling.T / noise, jnp.float32)
    tril = jnp.asarray(np.linalg.cholesky(covariance), jnp.float32)
    weights = jnp.asarray(coupling, jnp.float32)
    return SimpleNamespace(
        posterior=lambda p, s, batch: dist.MultivariateNormal(batch.x @ slope.T, scale_tril=tril),
        prior=lambda p, s, given: normal_prior(latent_dim),
        decode=lambda p, s, z, given: dist.Normal(z @ weights.T, noise**0.5).to_event(1),
    )


@pytest.mark.slow
def test_a_linear_model_has_its_closed_form_in_every_row():
    """With the exact posterior and data of the model q(z) = p(z), and all bounds are of one I."""
    rng = np.random.default_rng(5)
    coupling, noise, number = rng.normal(size=(5, 2)), 1.0, 2000
    exact = 0.5 * np.linalg.slogdet(np.eye(2) + coupling.T @ coupling / noise)[1]
    x = rng.normal(size=(number, 2)) @ coupling.T + noise**0.5 * rng.normal(size=(number, 5))
    measure = aggregate_posterior.make_measure(linear(coupling, noise))
    batch = Batch(jnp.asarray(x, jnp.float32))
    values = jax.device_get(jax.jit(measure)(jax.random.key(0), (), (), batch))

    def z_score(name, truth):
        array = np.float64(values[name])
        return (array.mean() - truth) / (array.std(ddof=1) / np.sqrt(number))

    # The rate and Barber and Agakov's bound are tight: q(z) is the prior, q(z|x) the posterior.
    for name in ("information_corrected", "information_rate", "model_information"):
        assert abs(z_score(name, exact)) < 4, name
    assert z_score("information", exact) < 4 and z_score("information_loo", exact) > -4
    means = [values[n].mean() for n in ("information", "information_corrected", "information_loo")]
    assert means == sorted(means)
    assert abs(z_score("aggregate_kl_corrected", 0.0)) < 4
    assert values["aggregate_kl"].mean() > values["aggregate_kl_corrected"].mean()


def test_what_has_no_aggregate_posterior_is_refused():
    model = SimpleNamespace(posterior=None, prior=None, classes=None)
    with pytest.raises(
        ValueError, match="measures=information needs q.z.x. and p.z.: a run of a latent-"
    ):
        aggregate_posterior.check(model)
    with pytest.raises(ValueError, match=" condition=label has an aggregate posterior for each y"):
        aggregate_posterior.check(SimpleNamespace(posterior=1, prior=1, classes=3))
