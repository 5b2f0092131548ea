"""Unusual posteriors (draws that jump, moving supports), conditional priors, random masks."""

import functools
import itertools

import chex
import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from tensorflow_probability.substrates import jax as tfp

from elbo_lab import losses
from elbo_lab.distributions import Chain
from elbo_lab.losses.estimators import PATH_ESTIMATORS
from elbo_lab.losses.posteriors import one_per_example
from tests.losses import calls
from tests.losses.binary_images import PRIOR, B, D, K, L, W, X, log_likelihood

pytestmark = [
    pytest.mark.usefixtures("fast_compilation"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability"),
]
tfd = tfp.distributions

# Floating-point draws that jump.


class FloatBernoulli:
    """A user's own posterior: Bernoulli draws as floating-point numbers."""

    def __init__(self, logits):
        self.logits = logits

    def sample(self, key, sample_shape=()):
        shape = (*sample_shape, *self.logits.shape)
        p = jnp.broadcast_to(jax.nn.sigmoid(self.logits), shape)
        return jax.random.bernoulli(key, p).astype(jnp.float32)

    def log_prob(self, z):
        logits = jnp.broadcast_to(self.logits, z.shape)
        return jnp.sum(z * logits - jax.nn.softplus(logits), axis=-1)


class NumPyroBernoulli(dist.Distribution):
    """The same as a subclass of NumPyro's, whose `has_rsample` then wrongly is True."""

    def __init__(self, logits):
        self.own = FloatBernoulli(logits)
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def sample(self, key, sample_shape=()):
        return self.own.sample(key, sample_shape)

    def log_prob(self, z):
        return self.own.log_prob(z)


BERNOULLI_PRIOR = FloatBernoulli(jnp.zeros(L))


def bernoulli_loss(logits, key, posterior=FloatBernoulli, estimator="reparam", **options):
    arguments = posterior(logits), BERNOULLI_PRIOR, log_likelihood
    return jnp.sum(losses.elbo(key, *arguments, estimator=estimator, **options)[0])


def transformed(loss):
    """The gradient by the first argument, plainly and under transformations."""
    yield jax.grad(loss)
    yield jax.jit(jax.grad(loss))
    yield jax.grad(jax.jit(loss))
    yield lambda logits, key: jax.vmap(jax.grad(loss), (0, None))(logits[None], key)
    yield jax.grad(
        lambda logits, key: jax.lax.scan(
            lambda total, _: (total + jax.checkpoint(loss)(logits, key), None), 0.0, length=1
        )[0]
    )


@pytest.mark.parametrize("estimator", sorted(PATH_ESTIMATORS))
@pytest.mark.parametrize("posterior", [FloatBernoulli, NumPyroBernoulli])
def test_draws_that_jump_are_refused_where_they_are_differentiated(posterior, estimator):
    loss = functools.partial(bernoulli_loss, posterior=posterior, estimator=estimator)
    for slope in transformed(loss):
        with pytest.raises(ValueError, match=f'"{estimator}" needs .* score, score_loo, vimco'):
            jax.eval_shape(slope, jnp.zeros((B, L)), jax.random.key(0))
    # The value needs no derivative.
    assert jax.eval_shape(loss, jnp.zeros((B, L)), jax.random.key(0)).shape == ()


def test_vimcos_mean_gradient_equals_the_enumerated_one():
    logits = np.linspace(-1, 1, L).astype(np.float32)

    def exact(logits):
        total = 0.0
        for z in itertools.product([0, 1], repeat=L):
            z = np.array(z, float)
            log_q = np.sum(z * logits - np.log1p(np.exp(logits)))
            scores = z @ np.float64(W)
            log_px_z = np.sum(X * scores - np.log1p(np.exp(scores)), axis=-1)  # [B]
            total += np.exp(log_q) * np.sum(log_px_z - L * np.log(2) - log_q)
        return -total

    def loss(logits, key):
        logits = jnp.broadcast_to(logits, (B, L))
        return bernoulli_loss(logits, key, estimator="vimco", num_samples=2)

    keys = jax.random.split(jax.random.key(0), 4_000)
    samples = np.float64(jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(logits, keys))
    error = np.std(samples, axis=0, ddof=1) / np.sqrt(len(keys))
    steps = 1e-5 * np.eye(L)
    expected = [(exact(logits + h) - exact(logits - h)) / 2e-5 for h in steps]
    assert np.all(np.abs(np.mean(samples, axis=0) - expected) < 4 * error)


class WithNoise:
    """A normal and uniform noise, whose density has no parameters."""

    def __init__(self, mean, declared):
        self.mean = mean
        if declared:
            self.reparameterized = True

    def sample(self, key, sample_shape=()):
        normal_key, uniform_key = jax.random.split(key)
        shape = (*sample_shape, *self.mean.shape)
        mean = jnp.broadcast_to(self.mean, shape)
        return mean + jax.random.normal(normal_key, shape), jax.random.uniform(uniform_key, shape)

    def log_prob(self, z):
        return jnp.sum(dist.Normal(self.mean, 1.0).log_prob(z[0]), axis=-1)


class UniformNoise:
    """Uniform noise on [0, 1]^L for each example."""

    def sample(self, key, sample_shape=()):
        return jax.random.uniform(key, (*sample_shape, B, L))

    def log_prob(self, z):
        return jnp.zeros(z.shape[:-1])


def test_frozen_posteriors_and_uniform_noise_are_accepted():
    """The generation network's gradient alone, and noise whose density has no parameters."""

    def by_model(w, posterior, estimator):
        def log_likelihood(z):
            return dist.BernoulliLogits(z @ w).to_event(1).log_prob(X)

        prior = dist.Uniform(jnp.zeros(L), 1.0).to_event(1)
        arguments = posterior, prior, log_likelihood
        return jnp.sum(losses.iwae(jax.random.key(0), *arguments, estimator=estimator)[0])

    for estimator in PATH_ESTIMATORS:
        for posterior in (FloatBernoulli(jnp.zeros((B, L))), UniformNoise()):
            slope = functools.partial(by_model, posterior=posterior, estimator=estimator)
            assert jax.eval_shape(jax.grad(slope), W).shape == W.shape

    def by_mean(mean, declared):
        posterior = WithNoise(mean, declared)
        prior = WithNoise(jnp.zeros(L), declared)
        arguments = posterior, prior, lambda z: log_likelihood(z[0] + z[1])
        return jnp.sum(losses.iwae(jax.random.key(0), *arguments, estimator="stl")[0])

    mean = jnp.zeros((B, L))
    slope = functools.partial(jax.grad(by_mean), declared=True)
    assert jax.eval_shape(slope, mean).shape == (B, L)
    slope = functools.partial(jax.grad(by_mean), declared=False)
    with pytest.raises(ValueError, match="an attribute reparameterized = True"):
        jax.eval_shape(slope, mean)


# Distributions returned from jax.vmap.


@pytest.mark.parametrize("num_samples", [K, B])  # With K = B the wrong shapes broadcast.
@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("prior", [PRIOR, dist.Normal(jnp.zeros((B, L)), 1.0).to_event(1)])
def test_distributions_returned_from_vmap_are_refused(prior, vectorized, num_samples):
    stale = jax.vmap(lambda m: dist.Normal(m, 0.5).to_event(1))(jnp.zeros((B, L)))
    assert stale.batch_shape == ()
    options = {"num_samples": num_samples, "vectorized": vectorized}
    with pytest.raises(ValueError, match=r"batch shape \(\), .*returned out of jax\.vmap"):
        losses.iwae(jax.random.key(0), stale, prior, log_likelihood, **options)


class OneDrawForAllExamples:
    """A user's own sampler, whose draws lack the batch."""

    def sample(self, key, sample_shape=()):
        return jax.random.normal(key, (*sample_shape, L))

    def log_prob(self, z):
        return dist.Normal(jnp.zeros((B, L)), 1.0).to_event(1).log_prob(z)


def test_draws_without_the_batch_of_their_density_are_refused():
    arguments = OneDrawForAllExamples(), PRIOR, log_likelihood
    with pytest.raises(ValueError, match=r"draws of shape \[K, \*batch, .*\(5, 4, .*got \(5, 3\)"):
        jax.eval_shape(lambda key: losses.iwae(key, *arguments, num_samples=K), jax.random.key(0))


# A user's own attributes with names that mean something in other libraries.


class OwnModule:
    """A normal whose attributes have other meanings in NumPyro, Distrax or TFP."""

    layers = ("dense", "dense")
    support = "real"
    transforms = ()
    event_shape = None

    def __init__(self, mean):
        self.mean = mean

    def sample(self, key, sample_shape=()):
        noise = jax.random.normal(key, (*sample_shape, *self.mean.shape))
        return jnp.broadcast_to(self.mean, noise.shape) + noise

    def log_prob(self, z):
        return jnp.sum(dist.Normal(self.mean, 1.0).log_prob(z), axis=-1)


@pytest.mark.parametrize("estimator", calls.GAUSSIAN)
def test_a_users_own_attributes_are_ignored(estimator):
    def loss(mean):
        arguments = OwnModule(mean), PRIOR, log_likelihood
        return jnp.sum(losses.iwae(jax.random.key(0), *arguments, estimator=estimator)[0])

    assert jax.eval_shape(jax.grad(loss), jnp.zeros((B, L))).shape == (B, L)


# Conditional priors.


def loss_with_prior_draws(name, prior, key):
    """The loss of an objective that samples the prior."""
    options = {}
    if name != "info_vae":
        options["inference"] = lambda x: dist.Normal(x @ W.T, 0.5).to_event(1)
        options["generation"] = lambda z: dist.BernoulliLogits(z @ W).to_event(1)
    if name == "rws":
        options["phase"] = "sleep"
    posterior = dist.Normal(jnp.zeros((B, L)), 0.5).to_event(1)
    return losses.OBJECTIVES[name](key, posterior, prior, log_likelihood, **options)[0]


@pytest.mark.parametrize("name", ["info_vae", "wake_sleep", "rws"])
def test_conditional_priors_give_one_draw_per_example(name):
    mean = np.repeat(100 * np.arange(B, dtype=np.float32)[:, None], L, axis=1)
    by_scale = dist.Normal(mean[:, :1], jnp.ones(L)).to_event(1)
    priors = [dist.Normal(mean, 1.0).to_event(1), by_scale]
    if name != "info_vae":
        priors.append(OwnModule(mean))
    for prior in priors:
        loss = functools.partial(loss_with_prior_draws, name, prior)
        assert jax.eval_shape(loss, jax.random.key(0)).shape == (B,)


def test_one_per_example_draws_from_each_examples_prior():
    mean = np.repeat(100 * np.arange(B, dtype=np.float32)[:, None], L, axis=1)
    for batch in ((), (1,), (B,)):
        prior = dist.Normal(jnp.zeros((*batch, L)), 1.0).to_event(1)
        z = one_per_example(prior, jax.random.key(0), (B,))
        assert z.shape == (B, L)
        assert len(np.unique(z)) == B * L  # No draw is shared.
    z = one_per_example(OwnModule(mean), jax.random.key(0), (B,))
    assert np.all(np.abs(z - mean) < 10)  # Each draw is from its own example's prior.
    wrong = dist.Normal(jnp.zeros((B + 1, L)), 1.0).to_event(1)
    with pytest.raises(ValueError, match=r"prior has batch shape \(5,\).*\(4,\)"):
        one_per_example(wrong, jax.random.key(0), (B,))


# Supports that move.


def uniform_loss(s, estimator, posterior, key):
    """-E[log w] of z ~ U(0, s), log p(z) = -z^2 / 2, log p(x|z) = -(z - 1)^2 / 2."""

    q, prior = posterior(s), dist.Normal(0.0, 1.0)
    if isinstance(q, Chain):
        prior = Chain(prior, ())

    def log_likelihood(z):
        return -0.5 * (jax.tree.leaves(z)[0] - 1) ** 2

    arguments = q, prior, log_likelihood
    return losses.elbo(key, *arguments, num_samples=2, estimator=estimator)[0]


def scaled(base, scale):
    return dist.TransformedDistribution(base, dist.transforms.AffineTransform(0.0, scale))


UNIFORMS = {
    "numpyro": lambda s: dist.Uniform(0.0, s),
    "numpyro, scaled": lambda s: scaled(dist.Uniform(0.0, 1.0), s),
    "hierarchy": lambda s: Chain(dist.Uniform(0.0, s), ()),
    "distrax": lambda s: distrax.Uniform(0.0, s),
    "tfp": lambda s: tfd.Uniform(0.0, s),
}


@pytest.mark.parametrize("library", UNIFORMS)
def test_moving_supports_are_refused_by_all_but_reparam(library):
    loss = functools.partial(uniform_loss, posterior=UNIFORMS[library])
    for name in calls.ANY_BOUND:
        slope = jax.grad(functools.partial(loss, estimator=name))
        if name == "reparam":
            assert jax.eval_shape(slope, 1.3, key=jax.random.key(0)).shape == ()
        else:
            with pytest.raises(ValueError, match=f'"{name}" needs .*support .*use reparam'):
                jax.eval_shape(slope, 1.3, key=jax.random.key(0))


def test_reparam_follows_a_moving_support():
    """d/ds of E[log w] = -s^2 / 3 + s / 2 + log s + constant, at s = 1.3."""
    loss = functools.partial(uniform_loss, estimator="reparam", posterior=UNIFORMS["numpyro"])
    keys = jax.random.split(jax.random.key(0), 10_000)
    slopes = jax.jit(jax.vmap(lambda key: jax.grad(loss)(1.3, key=key)))
    samples = np.float64(slopes(keys))
    exact = -(-2 * 1.3 / 3 + 0.5 + 1 / 1.3)
    error = np.std(samples) / np.sqrt(len(keys))
    assert abs(np.mean(samples) - exact) < 4 * error


def test_a_support_that_scaling_does_not_move_is_accepted():
    loss = functools.partial(uniform_loss, posterior=lambda s: scaled(dist.Exponential(1.0), s))
    for estimator in calls.ANY_BOUND:
        slope = jax.grad(functools.partial(loss, estimator=estimator))
        assert jax.eval_shape(slope, 1.3, key=jax.random.key(0)).shape == ()


def test_supports_that_depend_on_data_alone_are_accepted():
    """Dequantization: v ~ U(x, x + 1), differentiated by the model's parameters alone."""

    def loss(mean, estimator):
        prior = dist.Normal(mean, 1.0).to_event(1)
        posterior = dist.Uniform(jnp.asarray(X), X + 1.0).to_event(1)
        arguments = posterior, prior, lambda v: jnp.zeros(v.shape[:-1])
        return jnp.sum(losses.iwae(jax.random.key(0), *arguments, estimator=estimator)[0])

    for estimator in calls.GAUSSIAN:
        slope = jax.grad(functools.partial(loss, estimator=estimator))
        assert jax.eval_shape(slope, jnp.zeros(D)).shape == (D,)


# Decoders with random masks.


@pytest.mark.parametrize(
    ("name", "estimator", "vectorized"),
    [
        ("iwae", "dreg", False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("iwae", "dreg", True),
                ("ciwae", "dreg", True),
                ("ciwae", "wake_dreg", False),
                ("cubo", "dreg", False),
                ("rws", None, True),
            ]
        ),
    ],
)
def test_a_decoder_with_dropout_has_one_mask(name, estimator, vectorized):
    """A decoder with a new mask at each call gives the gradient of its first call's mask."""
    keys = list(jax.random.split(jax.random.key(7), 10))

    def loss(w, scale, stateful):
        masks = iter(keys)
        posterior = dist.Normal(0.3 * jnp.ones((B, L)), scale).to_event(1)

        def log_likelihood(z):
            key = jax.random.clone(next(masks) if stateful else keys[0])
            hidden = jnp.tanh(z @ w)
            mask = jax.random.bernoulli(key, 0.5, hidden.shape[-2:])
            mask = jnp.broadcast_to(mask, hidden.shape)
            return dist.BernoulliLogits(jnp.where(mask, hidden, 0)).to_event(1).log_prob(X)

        options = {"vectorized": vectorized}
        if estimator is not None:
            options["estimator"] = estimator
        if name == "rws":
            options["inference"] = lambda x: dist.Normal(x @ W.T, scale).to_event(1)
            options["generation"] = lambda z: dist.BernoulliLogits(z @ w).to_event(1)
            options["phase"] = "both"
        arguments = posterior, PRIOR, log_likelihood
        return jnp.sum(losses.OBJECTIVES[name](jax.random.key(0), *arguments, **options)[0])

    compute = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
    stateful, fixed = compute(W, 0.5, True), compute(W, 0.5, False)
    chex.assert_trees_all_close(stateful, fixed, rtol=1e-5, atol=1e-5)
    assert np.max(np.abs(fixed[1][0])) > 1e-2
