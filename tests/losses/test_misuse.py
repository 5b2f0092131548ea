"""Callers' mistakes, and the error messages: argument, valid values and likely cause."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.losses import estimators
from tests.losses import calls, linear_gaussian
from tests.losses.mean_gradients import GivenNoise

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, D, L, K = 4, 3, 2, calls.K
PARAMS = linear_gaussian.cast(linear_gaussian.make_params(D, L), np.float32)
X = np.random.default_rng(7).normal(size=(B, D)).astype(np.float32)
POSTERIOR, PRIOR, LOG_LIKELIHOOD = linear_gaussian.distributions(PARAMS, X)
every_objective = pytest.mark.parametrize("name", losses.OBJECTIVES)


def trace(name="iwae", key=None, x=X, **options):
    """Traces an objective, which is when arguments are checked; nothing is computed."""
    key = jax.random.key(0) if key is None else key
    return jax.eval_shape(lambda: calls.call(name, key, PARAMS, x, **options))


def per_dimension(mean, scale=1.0):
    """A normal without `.to_event(1)`."""
    return dist.Normal(mean, scale * jnp.ones(jnp.shape(mean)))


def log_px_z(z):
    """Not summed over data dimensions: [*batch, D]."""
    return dist.Normal(linear_gaussian.affine(z, PARAMS.w, PARAMS.b), 1.0).log_prob(X)


# Shapes.


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("estimator", ["reparam", "dreg", "score"])
def test_log_likelihood_that_is_not_summed_over_data(estimator, vectorized):
    options = {"estimator": estimator, "vectorized": vectorized}
    message = (
        r"log_likelihood must return one value per example, shape \(4,\).*got \(4, 3\)\. "
        r"Sum over the event dimensions, e\.g\. by NumPyro's `\.to_event\(1\)`"
    )
    with pytest.raises(ValueError, match=message):
        trace(log_likelihood=log_px_z, **options)


@every_objective
def test_log_likelihood_of_wrong_shape_in_every_objective(name):
    # lambda_vae takes the generation network's mean, and sums over its last axis.
    wrong = (lambda z: jnp.zeros((D, B, D))) if name == "lambda_vae" else log_px_z
    with pytest.raises(ValueError, match=r"log_likelihood .*one value per example.*got \((4|3), "):
        trace(name, log_likelihood=wrong)


def test_log_likelihood_that_sums_over_the_batch_too():
    with pytest.raises(
        ValueError, match=r"shape \(4,\).*got \(\)\. It must not sum over the batch"
    ):
        trace(log_likelihood=lambda z: jnp.sum(log_px_z(z)))


def test_posterior_or_prior_without_event_dimension():
    mean = jnp.zeros((B, L))
    with pytest.raises(ValueError, match=r"prior\.log_prob .*shape \(4, 2\).*give it `\.to_event"):
        trace(posterior=per_dimension(mean))
    with pytest.raises(
        ValueError, match=r"prior\.log_prob .*shape \(4,\).*got \(4, 2\)\. Sum over"
    ):
        trace(prior=per_dimension(mean[0]))
    with pytest.raises(
        ValueError, match=r"log_likelihood .*shape \(4, 2\).*posterior is one per la"
    ):
        trace(posterior=per_dimension(mean), prior=per_dimension(mean[0]))


def test_one_example_and_a_batch_are_confused():
    single = linear_gaussian.distributions(PARAMS, X[0])[0]
    with pytest.raises(
        ValueError, match=r"shape \(\).*got \(4,\)\..* or it sees a batch where the"
    ):
        trace(posterior=single)

    def mapped(x, key):
        posterior = linear_gaussian.distributions(PARAMS, x)[0]
        return losses.iwae(key, posterior, PRIOR, LOG_LIKELIHOOD)[0]  # All of X.

    with pytest.raises(
        ValueError, match=r"log_likelihood .*it sees a batch where the posterior is"
    ):
        jax.eval_shape(jax.vmap(mapped), X, jax.random.split(jax.random.key(0), B))


def test_posterior_and_prior_of_different_dimensions():
    prior = dist.Normal(jnp.zeros(L + 1), 1.0).to_event(1)
    with pytest.raises(ValueError, match=r"event shape \(2,\) differs from the prior's \(3,\)"):
        trace("elbo", prior=prior, kl="analytic")


class IgnoresSampleShape:
    """A posterior whose sampler ignores `sample_shape`."""

    def sample(self, key, sample_shape=()):
        return jax.random.normal(key, (B, L))

    def log_prob(self, z):
        return -0.5 * jnp.sum(z**2, axis=-1)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_samplers_that_ignore_sample_shape(estimator):
    with pytest.raises(ValueError, match=r"posterior\.sample must return draws.*\[6, .*\(4, 2\)"):
        trace(posterior=IgnoresSampleShape(), estimator=estimator)


# Values that the caller's functions return.


@pytest.mark.parametrize("estimator", calls.ANY_BOUND)
def test_bounds_of_the_wrong_shape(estimator):
    """The bound reduces the batch, alone or beside the draws; K = 6, B = 4."""
    for axis, shape in ((1, r"\(6,\)"), ((0, 1), r"\(\)")):
        message = rf"bound must map .*\(6, 4\), to .*\(4,\); it returned {shape}\..* axis 0 alone"
        with pytest.raises(ValueError, match=f"^{message}"):
            key, arguments = jax.random.key(0), (POSTERIOR, PRIOR, LOG_LIKELIHOOD)
            options = {"bound": lambda w: jnp.mean(w, axis=axis), "estimator": estimator}  # noqa: B023
            losses.from_bound(key, *arguments, num_samples=K, **options)


def test_a_users_bounds_own_error_is_shown():
    def from_bound(bound):
        arguments = POSTERIOR, PRIOR, LOG_LIKELIHOOD
        options = {"bound": bound, "num_samples": K, "estimator": "score_loo"}
        jax.eval_shape(lambda: losses.from_bound(jax.random.key(0), *arguments, **options))

    def failing(log_w):
        raise ValueError("mine")

    with pytest.raises(ValueError) as error:
        from_bound(failing)
    assert str(error.value) == "mine"

    def of_six_draws(log_w):
        if len(log_w) != K:
            raise ValueError("six draws, please.")
        return jnp.mean(log_w, axis=0)

    with pytest.raises(ValueError, match=r"K - 1 = 5 log-weights too, .*six draws, please\. Use "):
        from_bound(of_six_draws)


@pytest.mark.parametrize("shape", [(B, 1), (1, B), (K,), (1,)])
@pytest.mark.parametrize("num_samples", [K, B])  # With K = B more shapes broadcast.
def test_baselines_of_the_wrong_shape(shape, num_samples):
    estimator = functools.partial(estimators.score, baseline=jnp.zeros(shape))
    with pytest.raises(ValueError, match=r"baseline must be one number.*\(4,\); got shape \("):
        trace(estimator=estimator, num_samples=num_samples)


@pytest.mark.parametrize(
    ("name", "weight"),
    [("beta_vae", "beta"), ("capacity_vae", "gamma"), ("capacity_vae", "capacity")],
)
def test_weights_of_the_wrong_shape(name, weight):
    for kl in ("mc", "analytic") if name == "beta_vae" else (None,):
        options = {weight: jnp.ones((B, 1))} | ({"kl": kl} if kl else {})
        with pytest.raises(ValueError, match=r"must be one number, or one .*\(4,\).*\(4, 1\)"):
            trace(name, **options)
        trace(name, **options | {weight: jnp.ones(B)})


def test_surrogates_of_the_wrong_shape():
    def mine(key, problem, bound, weigh):
        loss, draws = estimators.reparam(key, problem, bound, weigh)
        return jnp.mean(loss), draws

    with pytest.raises(ValueError, match=r"estimator must return .*\(4,\), one .*got \(\)"):
        trace(estimator=mine)


@pytest.mark.parametrize("name", ["elbo", "capacity_vae", "dip_vae_i", "info_vae"])
def test_a_users_kl_of_the_wrong_shape(name, monkeypatch):
    independent = type(POSTERIOR), type(PRIOR)
    monkeypatch.setitem(losses.KL_REGISTRY, independent, lambda q, p: jnp.zeros((B, 1)))
    options = {"kl": "analytic"} if name == "elbo" else {}
    with pytest.raises(ValueError, match=r"closed-form KL .*shape \(4,\); got \(4, 1\)"):
        trace(name, **options)


# Keys.


@every_objective
def test_values_that_are_not_keys_are_refused(name):
    for key, kind in ((0, "int"), (jnp.zeros(2), "float32"), (jnp.zeros(3, jnp.uint32), "uint32")):
        with pytest.raises(ValueError, match=f"key must be a PRNG key.*; got {kind}"):
            trace(name, key=key)


@every_objective
def test_legacy_keys_are_wrapped(name):
    """NumPyro, Distrax and TFP users still pass jax.random.PRNGKey."""

    def loss(key):
        return calls.call(name, key, PARAMS, X)[0]

    with jax.debug_key_reuse(False):  # This check works with typed keys alone.
        legacy = jax.make_jaxpr(loss)(jax.random.PRNGKey(0))
    typed = jax.make_jaxpr(loss)(jax.random.key(0))
    # The same program, plus one operation that wraps the key.
    added = [str(equation.primitive) for equation in legacy.eqns]
    for equation in typed.eqns:
        added.remove(str(equation.primitive))
    assert added == ["random_wrap"]


@every_objective
def test_many_keys_are_refused(name):
    for keys in (
        jax.random.split(jax.random.key(0), B),
        jax.random.split(jax.random.PRNGKey(0), B),
    ):
        with pytest.raises(ValueError, match=r"one key; got keys of shape \(4,\).*jax\.vmap"):
            trace(name, key=keys)


@pytest.mark.parametrize("name", ["iwae", "sumo", "info_vae", "rws"])
def test_a_key_passed_to_two_objectives_raises(name):
    """Each objective consumes its key; JAX's own check `jax_debug_key_reuse` then raises."""

    @jax.jit
    def both(key):
        return calls.call("elbo", key, PARAMS, X)[0], calls.call(name, key, PARAMS, X)[0]

    with pytest.raises(jax.errors.KeyReuseError):
        both.lower(jax.random.key(0))


# Estimators.


@pytest.mark.parametrize("name", [n for n, e in losses.CATALOGUE.items() if e.estimators])
def test_pairs_outside_the_catalogue_name_the_valid_ones(name):
    valid = losses.CATALOGUE[name].estimators
    positional, options = calls.arguments(name, PARAMS, X)
    for estimator in {*losses.ESTIMATORS, "pathwise", None}.difference(valid):
        here = " here" if estimator in losses.ESTIMATORS else ""
        message = f"estimator must be one of {', '.join(valid)}{here}; got {estimator!r}"
        arguments = jax.random.key(0), *positional
        call = functools.partial(losses.OBJECTIVES[name], *arguments, **options)
        with pytest.raises(ValueError, match=f"^{message}"):
            jax.eval_shape(functools.partial(call, estimator=estimator))


@pytest.mark.parametrize("name", ["beta_tcvae", "info_vae", "miwae", "beta_vae", "elbo"])
def test_an_invalid_estimator_is_refused_as_a_function_too(name):
    valid = losses.CATALOGUE[name].estimators
    invalid = next(e for e in ("score_loo", "wake", "ovis") if e not in valid)
    for function in (losses.ESTIMATORS[invalid], functools.partial(losses.ESTIMATORS[invalid])):
        with pytest.raises(ValueError, match=f"estimator must be one of .* here; got '{invalid}'"):
            trace(name, estimator=function)


@pytest.mark.parametrize(
    "name", [n for n, e in losses.CATALOGUE.items() if "score" in e.estimators]
)
def test_partial_and_own_estimators_are_accepted(name):
    with_baseline = functools.partial(estimators.score, baseline=jnp.full(B, -3.0))

    def mine(key, problem, bound, weigh):
        return estimators.reparam(key, problem, bound, weigh)

    for estimator in (with_baseline, mine):
        assert trace(name, estimator=estimator) == trace(name)


def test_a_baseline_changes_the_gradient_and_not_the_value():
    """The change is -baseline times the gradient of sum_k log q(z_k|x) at fixed z; here for c."""
    baseline = np.float32(-3)

    def loss(params, estimator):
        values, _ = calls.call("iwae", jax.random.key(0), params, X, estimator=estimator)
        return jnp.sum(values)

    @jax.jit
    def compute(params):
        draws = losses.log_weights(jax.random.key(0), *linear_gaussian.distributions(params, X), K)
        names = "score", functools.partial(estimators.score, baseline=baseline)
        return draws.z, [jax.value_and_grad(loss)(params, name) for name in names]

    z, ((value, plain), (baseline_value, moved)) = compute(PARAMS)
    np.testing.assert_array_equal(value, baseline_value)
    scores = (np.float64(z) - (X @ PARAMS.a.T + PARAMS.c)) / np.exp(2 * PARAMS.log_scale)
    # The loss's score part is -(f - baseline) sum_k log q(z_k).
    expected = baseline * np.sum(scores, axis=(0, 1))
    np.testing.assert_allclose(np.float64(moved.c) - plain.c, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["score_loo", "vimco", "ovis"])
def test_estimators_that_compare_draws_refuse_a_single_draw(name):
    message = f'"{name}" compares draws.*at least 2; got 1.*use reparam, stl, dreg, score, wake'
    with pytest.raises(ValueError, match=message):
        trace(estimator=name, num_samples=1)


@pytest.mark.parametrize("name", sorted(estimators.PATH_ESTIMATORS))
def test_path_estimators_refuse_discrete_draws(name):
    posterior = dist.BernoulliLogits(jnp.zeros((B, L))).to_event(1)
    prior = dist.BernoulliLogits(jnp.zeros(L)).to_event(1)
    message = f'"{name}" needs .* differentiated.*score, score_loo, vimco, ovis, wake'
    with pytest.raises(ValueError, match=message):
        trace(posterior=posterior, prior=prior, estimator=name)


def test_a_mean_of_another_shape_than_x_is_refused():
    with pytest.raises(ValueError, match=r"generation_mean .*shape of x, \(4, 3\).*got \(4, 2\)"):
        trace("lambda_vae", log_likelihood=lambda z: z)


class HardDraws(GivenNoise):
    """Floating-point draws that carry no derivative, and are declared so."""

    has_rsample = False


NOT_REPARAMETERIZABLE = {
    "BernoulliProbs": (dist.BernoulliProbs(jnp.full(B, 0.5)), dist.BernoulliProbs(0.5)),
    "CategoricalProbs": (
        dist.CategoricalProbs(jnp.full((B, 3), 1 / 3)),
        dist.CategoricalProbs(jnp.full(3, 1 / 3)),
    ),
    "HardDraws": (HardDraws(jnp.zeros((B, L)), jnp.ones(L), jnp.zeros((K, B, L))), PRIOR),
}


@pytest.mark.parametrize("kind", NOT_REPARAMETERIZABLE)
def test_draws_without_a_derivative_are_refused(kind):
    posterior, prior = NOT_REPARAMETERIZABLE[kind]
    distributions = {"posterior": posterior, "prior": prior}
    with pytest.raises(ValueError, match=f"reparam.*{kind}"):
        trace(**distributions, log_likelihood=lambda z: jnp.zeros(B), estimator="reparam")


# Other options.


@every_objective
def test_num_samples_is_a_positive_integer(name):
    for num_samples in (0, -1, 2.5, 2.0, True, "5", None):
        with pytest.raises(ValueError, match=f"num_samples .*got {num_samples!r}"):
            trace(name, num_samples=num_samples)


@pytest.mark.parametrize("num_outer", [0, -2, 1.0, True])
def test_num_outer_is_a_positive_integer(num_outer):
    with pytest.raises(ValueError, match=f"num_outer .*got {num_outer!r}"):
        trace("miwae", num_outer=num_outer)


@pytest.mark.parametrize("name", ["elbo", "beta_vae"])
def test_unknown_kl_and_no_closed_form(name):
    with pytest.raises(ValueError, match="kl must be one of mc, analytic; got 'exact'"):
        trace(name, kl="exact")
    prior = dist.Laplace(jnp.zeros(L), jnp.ones(L)).to_event(1)
    with pytest.raises(ValueError, match='No closed-form KL.*kl="mc"'):
        trace(name, prior=prior, kl="analytic")
