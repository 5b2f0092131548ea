"""Mixtures: EM against scikit-learn and NumPy in float64, gradients by Fisher's identity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as laws
from scipy.special import expit, logsumexp

from elbo_lab import configs, methods, models
from elbo_lab.data import Batch, Spec
from elbo_lab.distributions import mixtures
from elbo_lab.methods import mixture
from elbo_lab.models import NOTHING_GIVEN, components
from elbo_lab.models.components import BERNOULLI, COVARIANCES, Statistics
from elbo_lab.models.mixture import MixtureOptions

pytestmark = pytest.mark.usefixtures("fast_compilation")

K, D, N = 3, 2, 60
REAL, BINARY = Spec("real", (D,), None), Spec("image", (2, 3), 2)
KINDS = (*COVARIANCES, BERNOULLI)


def data(kind: str) -> np.ndarray:
    """Examples [N, D], float64: three skewed groups, or noisy copies of three binary images."""
    rng = np.random.default_rng(3)
    group = rng.integers(K, size=N)
    if kind == BERNOULLI:
        images = rng.integers(2, size=(K, BINARY.dim))
        return np.where(rng.random((N, BINARY.dim)) < 0.15, 1 - images[group], images[group]) * 1.0
    noise = rng.normal(size=(N, D)) @ np.array([[1.0, 0.6], [0.0, 0.4]])
    return 100 + 3 * np.array([[0, 0], [1, 1], [1, -1]])[group] + noise


def beginning(kind: str) -> Statistics:
    """Unequal shares, three examples as means, and covariances with correlations; float64."""
    x, covariance = data(kind), np.array([[1.5, 0.2], [0.2, 0.8]])
    shares = np.array([0.5, 0.2, 0.3])
    if kind == BERNOULLI:
        return Statistics(shares, (x[:K] + x.mean(0)) / 2, ())
    covariances = {
        "full": np.stack([covariance, 2 * covariance, covariance]),
        "diagonal": np.array([[1.5, 0.8], [1.0, 1.0], [0.7, 2.0]]),
        "tied": covariance,
    }
    return Statistics(shares, x[:K], covariances[kind])


def model(kind: str, floor: float, **changes):
    likelihood = BERNOULLI if kind == BERNOULLI else "gaussian"
    covariance = "full" if kind == BERNOULLI else kind
    options = MixtureOptions(K, likelihood, covariance, variance_floor=floor, **changes)
    spec = BINARY if kind == BERNOULLI else REAL
    module = models.MODELS["mixture"]
    return module.make(options, spec), spec


@functools.cache
def path(kind: str, floor: float, steps: int = 12) -> tuple[Statistics, np.ndarray]:
    """Statistics after each iteration of EM in float64, and log p(x) of the data before each."""
    fitted, spec = model(kind, floor)
    method = mixture.by_em(fitted, spec, decay=0.0)

    @jax.jit
    def run(stats, x):
        def step(stats, _):
            loss = method.loss(None, (), stats, Batch(x), {})
            stats, _ = method.update(None, (), stats, loss.observed)
            return stats, (stats, -jnp.sum(loss.loss))

        return jax.lax.scan(step, stats, length=steps)[1]

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, run(beginning(kind), data(kind)))


@pytest.mark.slow
@pytest.mark.parametrize("floor", [1e-6, 0.3])
@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_every_iteration_of_em_is_that_of_scikit_learn(kind, floor):
    from sklearn.mixture import GaussianMixture

    start, name = beginning(kind), {"diagonal": "diag"}.get(kind, kind)
    if kind == "diagonal":
        precisions = 1 / (start.covariances + floor)
    else:
        precisions = np.linalg.inv(start.covariances + floor * np.eye(D))
    peer = GaussianMixture(
        n_components=K,
        covariance_type=name,
        tol=0,
        reg_covar=floor,
        max_iter=1,
        weights_init=start.shares,
        means_init=start.means,
        precisions_init=precisions,
        warm_start=True,
    )
    ours, log_px = path(kind, floor)
    floors = floor if kind == "diagonal" else floor * np.eye(D)
    for t in range(len(log_px)):
        peer.fit(data(kind))
        assert log_px[t] / N == pytest.approx(peer.lower_bound_, rel=1e-9)
        np.testing.assert_allclose(ours.shares[t], peer.weights_, rtol=1e-6)
        np.testing.assert_allclose(ours.means[t], peer.means_, rtol=1e-6)
        np.testing.assert_allclose(ours.covariances[t] + floors, peer.covariances_, rtol=1e-6)


def test_every_iteration_of_em_on_binary_images_is_that_of_numpy():
    x, start = data(BERNOULLI), beginning(BERNOULLI)
    ours, log_px = path(BERNOULLI, 1e-6)
    least = 0.5 - np.sqrt(0.25 - 1e-6)
    weights, p = start.shares, start.means
    for t in range(len(log_px)):
        clipped = np.clip(p, least, 1 - least)
        log_joint = np.log(weights) + laws.bernoulli.logpmf(x[:, None], clipped).sum(-1)
        assert log_px[t] == pytest.approx(logsumexp(log_joint, axis=1).sum(), rel=1e-9)
        rows = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
        weights, p = rows.mean(0), rows.T @ x / rows.sum(0)[:, None]
        np.testing.assert_allclose(ours.shares[t], weights, rtol=1e-8)
        np.testing.assert_allclose(ours.means[t], p, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_likelihood_never_falls_while_no_floor_is_active(kind):
    _, log_px = path(kind, 1e-6 if kind == BERNOULLI else 0.0)
    assert np.all(np.diff(log_px) > -1e-9 * abs(log_px[0]))
    assert log_px[-1] > log_px[0] + 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_batches_are_averages_of_raw_moments(kind, monkeypatch):
    # Three blocks of rows, the last with two rows of zeros.
    monkeypatch.setattr(mixtures, "BLOCK_SIZE", 1)
    monkeypatch.setattr(mixtures, "LEAST_ROWS", 3)
    x, old, decay = data(kind)[:7], beginning(kind), 0.7
    rows = np.random.default_rng(0).dirichlet(np.ones(K), 7)
    with jax.enable_x64(True):
        new = components.updated(jax.tree.map(jnp.asarray, old), jnp.asarray(x), rows, decay, kind)
    shares = decay * old.shares + (1 - decay) * rows.mean(0)
    first = decay * old.shares[:, None] * old.means + (1 - decay) * rows.T @ x / 7
    means = first / shares[:, None]
    np.testing.assert_allclose(new.shares, shares, rtol=1e-12)
    np.testing.assert_allclose(new.means, means, rtol=1e-12)
    if kind == BERNOULLI:
        return
    covariances = old.covariances
    if kind == "diagonal":
        covariances = np.stack([np.diag(row) for row in covariances])
    outer = covariances + old.means[:, :, None] * old.means[:, None]
    second = decay * old.shares[:, None, None] * outer
    second = second + (1 - decay) * np.einsum("nk,nd,ne->kde", rows, x, x) / 7
    within = second - shares[:, None, None] * means[:, :, None] * means[:, None]
    each = within / shares[:, None, None]
    expected = {
        "full": each,
        "tied": within.sum(0),
        "diagonal": np.diagonal(each, axis1=1, axis2=2),
    }
    np.testing.assert_allclose(new.covariances, expected[kind], rtol=1e-7)  # moments are near 1e4


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_without_examples_keeps_its_place_and_gives_no_nan(kind):
    fitted, spec = model(kind, 0.01)
    stats = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), beginning(kind))
    x = jnp.asarray(data(kind), jnp.float32)
    rows = jnp.stack([jnp.linspace(0, 1, N), 1 - jnp.linspace(0, 1, N), jnp.zeros(N)], axis=1)

    @jax.jit
    def step(stats):
        new = fitted.update(stats, x, rows, 0.0)
        return new, fitted.distribution((), new, NOTHING_GIVEN).log_prob(x)

    new, log_px = step(stats)
    assert new.shares[2] == 0 and np.all(np.isfinite(log_px))
    np.testing.assert_array_equal(new.means[2], stats.means[2])
    if kind in ("full", "diagonal"):
        np.testing.assert_array_equal(new.covariances[2], stats.covariances[2])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(new))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "diagonal", BERNOULLI])
def test_the_gradient_of_log_p_is_the_mean_gradient_under_the_responsibilities(kind):
    """Fisher's identity, with p(k|x) and the gradients of log w_k p_k(x) by NumPy in float64."""
    floor, x = 0.04, data(kind)
    fitted, spec = model(kind, floor, fit="gradient")
    method = mixture.by_gradient(fitted, spec)
    with jax.enable_x64(True):
        params = jax.tree.map(
            jnp.float64, fitted.init(jax.random.key(0), Batch(jnp.asarray(x[:10])), None)
        )
        params["weights"] = jnp.array([0.2, -0.5, 1.0])

        @jax.jit
        def both(params):
            batch = Batch(jnp.asarray(x))
            loss = lambda p: jnp.sum(method.loss(None, p, (), batch, {}).loss)  # noqa: E731
            return method.encode(params, (), batch), jax.grad(loss)(params)

        rows, grads = jax.tree.map(np.asarray, both(params))
    params = jax.tree.map(np.asarray, params)
    weights = np.exp(params["weights"] - logsumexp(params["weights"]))
    if kind == BERNOULLI:
        least, s = 0.5 - np.sqrt(0.25 - floor), expit(params["logits"])
        p = least + (1 - 2 * least) * s
        log_joint = np.log(weights) + laws.bernoulli.logpmf(x[:, None], p).sum(-1)
        scores = {"logits": (x[:, None] - p) / (p * (1 - p)) * (1 - 2 * least) * s * (1 - s)}
    else:
        if kind == "diagonal":
            covariances = np.stack([np.diag(np.exp(v)) for v in params["log_variances"]])
        else:
            factors = np.tril(params["factors"], -1)
            factors += np.stack([np.diag(np.exp(np.diag(f))) for f in params["factors"]])
            covariances = factors @ factors.transpose(0, 2, 1)
        covariances = covariances + floor * np.eye(D)
        parts = [
            laws.multivariate_normal(m, c)
            for m, c in zip(params["means"], covariances, strict=True)
        ]
        log_joint = np.log(weights) + np.stack([part.logpdf(x) for part in parts], axis=1)
        offsets = x[:, None] - params["means"]
        scores = {"means": np.einsum("kde,nke->nkd", np.linalg.inv(covariances), offsets)}
    expected = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(-grads["weights"], (expected - weights).sum(0), rtol=1e-6)
    for name, score in scores.items():
        fisher = np.einsum("nk,nkd->kd", expected, score)
        np.testing.assert_allclose(-grads[name], fisher, rtol=1e-6, atol=1e-9)


def test_the_decay_is_1_minus_b_over_n_if_none_is_given():
    settings = {"model": "mixture", "components": K, "likelihood": "gaussian", "batch_size": 15}
    stats = jax.tree.map(jnp.float32, beginning("full"))
    batch = Batch(jnp.asarray(data("full")[:15], jnp.float32))

    def after(method):
        @jax.jit
        def step(stats):
            observed = method.loss(None, (), stats, batch, {}).observed
            return method.update(None, (), stats, observed)[0]

        return step(stats)

    config = configs.make(**settings)
    given = configs.make(**settings, em_decay=0.75)
    by_default = after(methods.make(config, REAL, N))
    jax.tree.map(np.testing.assert_array_equal, by_default, after(methods.make(given, REAL)))
    with pytest.raises(ValueError, match="number of training examples"):
        methods.make(config, REAL)


@pytest.mark.parametrize("start", ["kmeans++", "random"])
def test_a_start_is_made_of_the_first_rows(start):
    x = jnp.asarray(data("full"), jnp.float32)
    begin = functools.partial(components.start, x=x, number=K, kind="tied", way=start)
    statistics = jax.jit(begin)(jax.random.key(0))
    means = np.asarray(statistics.means)
    np.testing.assert_allclose(statistics.covariances, np.diag(np.var(x, axis=0)), rtol=1e-4)
    np.testing.assert_allclose(statistics.shares, 1 / K)
    assert len(np.unique(means, axis=0)) == K
    if start == "kmeans++":
        assert all(np.any(np.all(x == mean, axis=1)) for mean in means)
    assert np.all(means >= x.min(axis=0)) and np.all(means <= x.max(axis=0))


@pytest.mark.slow
def test_pictures_of_gaussians_are_grey_levels():
    options = MixtureOptions(K, "gaussian")
    spec = Spec("image", (2, 3), 256)
    method = mixture.by_em(models.MODELS["mixture"].make(options, spec), spec, 0.0)
    batch = Batch(jnp.asarray(np.random.default_rng(0).random((9, 6)), jnp.float32))

    @jax.jit
    def drawn(key):
        init_key, *keys = jax.random.split(key, 1 + len(method.pictures))
        params, stats = method.init(init_key, batch)
        return [
            picture.draw(k, params, stats, batch)
            for k, picture in zip(keys, method.pictures.values(), strict=True)
        ]

    samples, means = drawn(jax.random.key(0))
    assert samples.shape == (9, 6) and means.shape == (K, 6)
    for images in (samples, means):
        assert np.all((np.asarray(images) >= 0) & (np.asarray(images) <= 1))
    assert np.any(np.asarray(samples) == 0)


def test_data_without_such_components_are_refused():
    make = models.MODELS["mixture"].make
    for spec, options, words in [
        (Spec("token", (4,), 5), MixtureOptions(), "takes images or real numbers, not tokens"),
        (REAL, MixtureOptions(), "needs binary images, but these data are of kind 'real'"),
        (Spec("image", (2, 2), 256), MixtureOptions(), "with levels=256; use likelihood=gaussian"),
        (BINARY, MixtureOptions(variance_floor=0.0), "variance_floor must be above 0"),
        (BINARY, MixtureOptions(variance_floor=0.25), "below 0.25, the largest variance"),
    ]:
        with pytest.raises(ValueError, match=words):
            make(options, spec)
    fitted = make(MixtureOptions(5, "gaussian"), REAL)
    with pytest.raises(ValueError, match="components must be at most 4, the rows of the first"):
        fitted.init(jax.random.key(0), Batch(jnp.zeros((4, D))))
