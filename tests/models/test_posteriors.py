"""Covariances of q(z|x), against NumPy and SciPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from elbo_lab import configs, losses, methods
from elbo_lab.cli import validation
from elbo_lab.data import Batch, Dataset, Spec
from elbo_lab.errors import UserError
from elbo_lab.losses import CATALOGUE
from elbo_lab.models import conv, mlp
from elbo_lab.models.base import NOTHING_GIVEN
from elbo_lab.models.posteriors import GAUSSIANS, POSTERIORS
from elbo_lab.models.priors import PRIORS
from elbo_lab.training import hyper

pytestmark = pytest.mark.usefixtures("fast_compilation")

L, R, DRAWS = 3, 2, 4000
SPEC = Spec("image", (6,), 2)
_rng = np.random.default_rng(0)
MEAN = _rng.normal(size=(2, L))
SCALE = _rng.uniform(0.4, 1.5, size=(2, L))
# The further outputs of a network, and the covariances that they stand for.
BELOW, FACTOR = _rng.normal(size=(2, 3)), _rng.normal(size=(2, L * R))
TRIL = np.stack([np.diag(scale) for scale in SCALE])
TRIL[:, 1, 0], TRIL[:, 2, 0], TRIL[:, 2, 1] = BELOW.T
_factors = FACTOR.reshape(2, L, R)
FORMS = {
    "diagonal": ((), SCALE[..., None] ** 2 * np.eye(L)),
    "full": ((BELOW,), TRIL @ np.swapaxes(TRIL, -1, -2)),
    "lowrank": (
        (FACTOR,),
        _factors @ np.swapaxes(_factors, -1, -2) + SCALE[..., None] ** 2 * np.eye(L),
    ),
}


def kl_to_standard(mean, covariance):
    """1/2 (tr S + m^T m - L - log |S|), the textbook's 13.23 for the prior N(0, I)."""
    log_det = np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(covariance) + mean @ mean - len(mean) - log_det)


@pytest.mark.parametrize("name", GAUSSIANS)
def test_density_kl_and_draws_of_every_covariance(name):
    outputs, covariance = FORMS[name]
    z = _rng.normal(size=(4, 2, L))
    prior = GAUSSIANS["diagonal"].distribution(jnp.zeros(L), jnp.ones(L))

    @jax.jit
    def compute(mean, scale, *outputs):
        q = GAUSSIANS[name].distribution(mean, scale, *outputs)
        assert q.batch_shape == (2,) and q.event_shape == (L,)
        kl, draws = losses.kl_divergence(q, prior), q.sample(jax.random.key(0), (DRAWS,))
        return q.log_prob(jnp.asarray(z, jnp.float32)), kl, draws, q.mean

    arguments = (MEAN, SCALE, *outputs)
    log_prob, kl, draws, mean = compute(*(jnp.asarray(a, jnp.float32) for a in arguments))
    np.testing.assert_allclose(mean, MEAN, rtol=1e-6)
    np.testing.assert_allclose(kl, list(map(kl_to_standard, MEAN, covariance)), rtol=1e-5)
    for i in range(2):
        law = stats.multivariate_normal(MEAN[i], covariance[i])
        np.testing.assert_allclose(log_prob[:, i], law.logpdf(z[:, i]), rtol=1e-5)
        sample, variances = np.float64(draws[:, i]), np.diag(covariance[i])
        errors = np.abs(sample.mean(axis=0) - MEAN[i])
        assert np.all(errors <= 4 * np.sqrt(variances / DRAWS))
        # Var of a sample covariance of Gaussians: (S_ii S_jj + S_ij^2) / N.
        error = np.sqrt((np.outer(variances, variances) + covariance[i] ** 2) / DRAWS)
        assert np.all(np.abs(np.cov(sample, rowvar=False) - covariance[i]) <= 4 * error)


@functools.cache
def params_and_posterior(name: str):
    """Parameters and q(z|x) of an mlp of two layers at its start, for six images."""
    options = mlp.MLPOptions(latent_dims=(3, 1), hidden_dims=(5,), posterior=name)
    model = mlp.make(options, SPEC)
    x = jnp.asarray(np.random.default_rng(1).integers(0, 2, (6, 6)), jnp.float32)

    @jax.jit
    def start(key, x):
        params = model.init(key, Batch(x))
        q = model.posterior(params, x, NOTHING_GIVEN)
        z = jnp.ones((6, 3)), jnp.ones((6, 1))
        return params, q.first.mean, q.first.variance, q.log_prob(z)

    return start(jax.random.key(0), x)


@pytest.mark.slow
def test_a_full_posterior_starts_as_the_diagonal_one():
    params, *full = params_and_posterior("full")
    diagonal_params, *diagonal = params_and_posterior("diagonal")
    for value, expected in zip(full, diagonal, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    # L (L - 1) / 2 further outputs of each layer, which are none for L = 1.
    below = params["encoder"]["layer_1"].pop("below")
    assert below["kernel"].shape == (5, 3)
    assert jax.tree.structure(params) == jax.tree.structure(diagonal_params)


@pytest.mark.slow
def test_sizes_of_conv():
    spec = Spec("image", (5, 6, 2), 256)
    settings = {"latent_dims": (3,), "channels": (4,), "likelihood": "logistic_mixture"}
    shape = {
        "full": ("scale_tril", (6, 8, L, L)),
        "lowrank": ("cov_factor", (6, 8, L, R)),
        "iaf": ("batch_shape", (6, 8)),
    }
    for name, (attribute, expected) in shape.items():
        prior = "flow" if name == "iaf" else "vamp"
        model = conv.make(
            conv.ConvOptions(**settings, posterior=name, posterior_rank=R, prior=prior), spec
        )

        def shapes(key, x, model=model, attribute=attribute):
            params = model.init(jax.random.clone(key), Batch(x[0]))
            q = model.posterior(params, x, NOTHING_GIVEN)
            z = q.sample(key, (4,))
            law = model.likelihood(params, z, NOTHING_GIVEN)
            densities = model.prior(params, NOTHING_GIVEN).log_prob(z), law.log_prob(x)
            value = getattr(q, attribute)
            return jnp.zeros(value) if attribute == "batch_shape" else value, densities

        matrix, densities = jax.eval_shape(shapes, jax.random.key(0), jnp.zeros((6, 8, spec.dim)))
        assert matrix.shape == expected
        assert all(density.shape == (4, 6, 8) for density in densities)


@pytest.mark.slow
@pytest.mark.parametrize(
    "posterior, prior",
    [
        ("full", "standard"),
        ("full", "flow"),
        ("diagonal", "mixture"),
        ("diagonal", "flow"),
        ("iaf", "standard"),
        ("iaf", "flow"),
    ],
)
def test_objectives_are_refused_where_the_library_cannot_compute_them(posterior, prior):
    """The flags refuse a pair by a sentence exactly if the objective's own function raises, at the
    defaults, e.g. a KL from draws where there is no closed form.
    """
    batch = Batch(jnp.zeros((4, 6)))
    base = {"latent_dims": (3,), "hidden_dims": (5,), "eval_k": 8, "batch_size": 4}
    base |= {"posterior_width": (4,)} if posterior == "iaf" else {}
    base |= {"prior_depth": 1, "prior_width": (4,)} if prior == "flow" else {}
    refused = set()
    for objective in CATALOGUE:
        values = base | {"objective": objective, "posterior": posterior, "prior": prior, "k": 4}
        values |= {"m": 2} if objective in ("miwae", "piwae") else {}
        config = configs.make(**values)
        method = methods.make(config, SPEC, 4)
        params, stats = jax.eval_shape(method.init, jax.random.key(0), batch)
        hparams = hyper.hyperparameters([config])

        def loss(params, key, method=method, stats=stats, hparams=hparams):
            return jnp.mean(method.loss(key, params, stats, batch, hparams).loss)

        try:
            jax.eval_shape(jax.grad(loss), params, jax.random.key(1))
            is_computed = True
        except ValueError:
            is_computed = False
        try:
            validation.check(config)
            is_valid = True
        except UserError:
            is_valid = False
        assert is_computed == is_valid, objective
        refused |= set() if is_valid else {objective}
    assert 0 < len(refused) < len(CATALOGUE)


BASE = {"latent_dims": (3,), "k": 2}
REFUSALS = [
    (
        {"likelihood_variance": 0.5},
        "--likelihood_variance=0.5 needs --likelihood=gaussian_fixed; got bernoulli.",
    ),
    (
        {"likelihood_components": 3},
        "--likelihood_components=3 needs --likelihood=logistic_mixture; got bernoulli.",
    ),
    ({"posterior_rank": 2}, "--posterior_rank=2 needs --posterior=lowrank; got diagonal."),
    ({"prior_components": 9}, "--prior_components=9 needs --prior=mixture or vamp; got standard."),
    ({"posterior": "tied"}, "--posterior must be one of diagonal, full, lowrank, iaf; got 'tied'."),
    ({"prior": "flows"}, "--prior must be one of standard, mixture, vamp, flow; got 'flows'."),
    ({"posterior_depth": 3}, "--posterior_depth=3 needs --posterior=iaf; got diagonal."),
    (
        {"posterior": "full", "posterior_width": (9, 8)},
        "--posterior_width=9,8 needs --posterior=iaf; got full.",
    ),
    (
        {"posterior": "lowrank", "posterior_min_kl": 0.25},
        "--posterior_min_kl=0.25 needs --posterior=diagonal; got lowrank.",
    ),
    (
        {"posterior_min_kl": 0.25, "prior": "mixture"},
        "--posterior_min_kl=0.25 needs --prior=standard, since it bounds the KL to N(0, I); got "
        "mixture.",
    ),
    (
        {"posterior_min_kl": 0.25, "latent_dims": (4, 3)},
        "--posterior_min_kl=0.25 needs one stochastic layer, since the lower ones have learned "
        "priors; got --latent_dims=4,3.",
    ),
    (
        {"posterior_min_kl": 11.0},
        "--posterior_min_kl must be a number of at least 0 and at most 10; got 11.0.",
    ),
    (
        {"objective": "autoencoder", "posterior_min_kl": 0.25, "k": None},
        "--posterior_min_kl=0.25 does not go with --objective=autoencoder, which decodes the means "
        "of q(z|x) and fits no prior; valid: 0.0.",
    ),
    ({"prior_flow": "spline"}, "--prior_flow=spline needs --prior=flow; got standard."),
    ({"prior": "vamp", "prior_depth": 3}, "--prior_depth=3 needs --prior=flow; got vamp."),
    ({"prior_width": (9,)}, "--prior_width=9 needs --prior=flow; got standard."),
    (
        {"posterior": "iaf", "latent_dims": (4, 3)},
        "--posterior=iaf needs one stochastic layer, since estimators would need the inverse of "
        "every layer; got --latent_dims=4,3.",
    ),
    (
        {"posterior": "iaf", "prior": "vamp"},
        "--prior=vamp does not go with --posterior=iaf: it mixes densities q(z|u) at other draws "
        "than their own, each of which is a search of as many passes as latent dimensions; use "
        "standard, mixture or flow.",
    ),
    (
        {"objective": "elbo", "posterior": "iaf", "kl": "analytic"},
        "--objective=elbo with --kl=analytic needs --posterior=diagonal, full or lowrank, since "
        "the KL from a flow has no closed form; use --kl=mc with --posterior=iaf.",
    ),
    (
        {"objective": "capacity_vae", "posterior": "iaf"},
        "--objective=capacity_vae needs --posterior=diagonal, full or lowrank, since |KL - C| of a "
        "KL from draws is biased, and the KL from a flow has no closed form; got iaf. With iaf use "
        "--objective=beta_vae, free_bits or free_bits_batch.",
    ),
    (
        {"objective": "dip_vae_i", "posterior": "iaf"},
        "--objective=dip_vae_i needs --posterior=diagonal, full or lowrank, since it takes the "
        "mean of q(z|x) in closed form, which a flow has not; got iaf.",
    ),
    (
        {"objective": "beta_tcvae", "posterior": "iaf"},
        "--objective=beta_tcvae needs --posterior=diagonal, since it takes q(z|x) apart into its "
        "dimensions; got iaf.",
    ),
    (
        {"objective": "info_vae", "prior": "mixture"},
        "--objective=info_vae needs --prior=standard or flow, since it differentiates draws of "
        "p(z), and which component a draw is from has no derivative; got mixture.",
    ),
    (
        {"objective": "free_bits_batch", "posterior": "iaf", "group_size": 1},
        "--group_size must be all latent dimensions, 3, with --kl=mc, which estimates one KL of "
        "them together; got 1.",
    ),
    (
        {"objective": "free_bits", "posterior": "iaf", "kl": "analytic"},
        "--objective=free_bits with --kl=analytic needs --posterior=diagonal, full or lowrank, "
        "since the KL from a flow has no closed form; use --kl=mc with --posterior=iaf.",
    ),
    (
        {"objective": "free_bits", "posterior": "iaf", "estimator": "dreg"},
        "--estimator=dreg does not go with --objective=free_bits --kl=mc; valid estimators: "
        "reparam.",
    ),
    (
        {"objective": "elbo", "prior": "flow", "kl": "analytic"},
        "--objective=elbo with --kl=analytic needs --prior=standard, since the KL to a flow has "
        "no closed form; use --kl=mc with --prior=flow.",
    ),
    (
        {"posterior": "lowrank", "posterior_rank": 4},
        "--posterior_rank must be at most the latent dimensions, 3 (with --posterior=full any "
        "covariance is possible); got 4.",
    ),
    (
        {"prior": "vamp", "latent_dims": (4, 3)},
        "--prior=vamp needs one stochastic layer, since it mixes the q(z|u) of learned inputs u; "
        "got --latent_dims=4,3.",
    ),
    (
        {"objective": "free_bits", "posterior": "full"},
        "--objective=free_bits needs --posterior=diagonal, since it takes q(z|x) apart into its "
        "dimensions; got full. With --kl=mc it takes all of them together.",
    ),
    (
        {"objective": "beta_vae", "prior": "vamp", "kl": "analytic"},
        "--objective=beta_vae with --kl=analytic needs --prior=standard, since the KL to a "
        "mixture has no closed form; use --kl=mc with --prior=vamp.",
    ),
    (
        {"objective": "capacity_vae", "prior": "mixture"},
        "--objective=capacity_vae needs --prior=standard, since |KL - C| of a KL from draws is "
        "biased, and the KL to a mixture has no closed form; got mixture. With mixture use "
        "--objective=beta_vae, free_bits or free_bits_batch.",
    ),
    (
        {"objective": "autoencoder", "posterior": "full", "k": None},
        "--posterior=full does not go with --objective=autoencoder, which decodes the means of "
        "q(z|x) and fits no prior; valid: diagonal.",
    ),
]


@pytest.mark.parametrize("values, message", REFUSALS)
def test_settings_that_do_not_go_together(values, message):
    with pytest.raises(UserError) as caught:
        validation.check(configs.make(**{**BASE, **values}))
    assert str(caught.value) == message


def test_a_flow_of_several_layers_or_in_a_vamp_prior_is_refused():
    for values, message in (
        ({"latent_dims": (4, 3)}, "posterior=iaf is of one .* got latent_dims=4,3"),
        ({"latent_dims": (4,), "prior": "vamp"}, "prior=vamp mixes the densities"),
    ):
        with pytest.raises(ValueError, match=message):
            mlp.make(mlp.MLPOptions(**values, posterior="iaf"), SPEC)


def test_settings_that_go_together():
    for values in (
        {"posterior": "full", "objective": "beta_vae"},
        {"posterior": "lowrank", "posterior_rank": 3},
        {"posterior": "full", "prior": "mixture", "latent_dims": (4, 3)},
        {"prior": "vamp", "objective": "beta_vae", "kl": "mc"},
        {"posterior": "full", "objective": "free_bits", "kl": "mc"},
        {"posterior": "iaf", "posterior_width": (9, 8), "posterior_depth": 1, "prior": "mixture"},
        {"prior": "flow", "prior_flow": "affine", "prior_depth": 1, "latent_dims": (4, 3)},
        {"likelihood": "gaussian_fixed", "likelihood_variance": 0.5, "binarization": "none"},
    ):
        validation.check(configs.make(**{**BASE, **values}))


@pytest.mark.parametrize(
    "values, filled",
    [
        ({"objective": "beta_vae"}, {"kl": "analytic"}),
        ({"objective": "beta_vae", "posterior": "full"}, {"kl": "analytic"}),
        ({"objective": "beta_vae", "posterior": "iaf"}, {"kl": "mc"}),
        ({"objective": "lambda_vae", "prior": "flow"}, {"kl": "mc"}),
        ({"objective": "beta_vae", "prior": "mixture"}, {"kl": "mc"}),
        ({"objective": "beta_vae", "latent_dims": (3, 2)}, {"kl": "mc"}),
        ({"objective": "free_bits"}, {"kl": "analytic", "group_size": 1}),
        ({"objective": "free_bits", "posterior": "iaf"}, {"kl": "mc", "group_size": 3}),
        ({"objective": "free_bits_batch", "kl": "mc"}, {"kl": "mc", "group_size": 3}),
        ({"objective": "info_vae", "prior": "flow"}, {"kl": "mc"}),
    ],
)
def test_the_kl_is_from_draws_where_it_has_no_closed_form_and_none_was_chosen(values, filled):
    config = configs.make(**{**BASE, **values})
    validation.check(config)
    settings = configs.own_settings(config)
    assert {name: settings[name] for name in filled} == filled
    # The stored value is explicit, and the same run as one that chose it.
    assert configs.from_dict(configs.to_dict(config)) == config
    assert configs.digest(config) == configs.digest(configs.make(**{**BASE, **values, **filled}))


def test_a_mean_that_lambda_vae_needs():
    x = np.array([[0, 9, 200, 255, 3, 4]] * 5, np.uint8)
    values = {"objective": "lambda_vae", "likelihood": "logistic_mixture", "binarization": "none"}
    config = configs.make(batch_size=4, **values)
    with pytest.raises(UserError, match="^--objective=lambda_vae needs the mean of p.*use disc"):
        validation.check_data(config, Dataset("faces", x, x, None, None, (1, 2, 3)))
    validation.check_data(config, Dataset("faces", x, x, None, None, (2, 3)))


def test_released_configurations_keep_their_digests():
    """The settings of this file are at their defaults in stored configurations."""
    for name in ("mlp", "conv", "vqvae"):
        settings = configs.own_settings(configs.make(model=name))
        new = {
            n: v for n, v in settings.items() if n.startswith(("likelihood_", "posterior", "prior"))
        }
        stored = {
            n: v for n, v in configs.to_dict(configs.make(model=name)).items() if n not in new
        }
        assert configs.from_dict(stored) == configs.make(model=name)
        assert not set(new) & set(configs.digest_values(configs.from_dict(stored)))
    assert list(PRIORS)[0] == "standard" and POSTERIORS[0] == "diagonal"
