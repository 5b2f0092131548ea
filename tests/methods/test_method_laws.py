"""Laws of every method of every model family, at tiny sizes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, methods, models, training
from elbo_lab.data import Batch, Spec
from elbo_lab.evaluation import QUANTITIES
from elbo_lab.models import MODELS, NOTHING_GIVEN, Density, Given, Model
from elbo_lab.models.mixture import EMMixture
from elbo_lab.objective_options import AUTOENCODER, GAN
from elbo_lab.training import checkpoint, hyper

pytestmark = pytest.mark.usefixtures("fast_compilation")

BINARY = Spec("image", (4, 4), 2)
COLOUR = Spec("image", (4, 4, 3), 256)
CODES = Spec("token", (2, 3), 5)
REAL = Spec("real", (3,), None)
LINES = Spec("token", (4,), 5)
LABELLED = BINARY._replace(classes=3)
SMALL = {"batch_size": 6, "learning_rate": 0.03, "lr_schedule": "constant", "log_every": 4}
MLP = {"hidden_dims": (8,), "k": 3, "eval_k": 6} | SMALL
CONV = {"model": "conv", "channels": (4, 6), "latent_dims": (2,), "k": 3, "eval_k": 6} | SMALL
SBN = {"model": "sbn", "latent_dims": (3, 2), "k": 3, "eval_k": 6} | SMALL
PIXELS = {"model": "pixelcnn", "width": 4, "layers": 2, "output_width": 4} | SMALL
RECURRENT = PIXELS | {"model": "pixelrnn", "first_kernel_size": 3}
PIXELVAE = CONV | {"model": "pixelvae", "receptive_field": 5, "layers": 2, "k": 2, "eval_k": 4}
PIXELVAE |= {"width": 4, "output_width": 4, "latent_features": 2}
VQ = {"model": "vqvae", "channels": (4,), "num_codes": 6, "code_dim": 3} | SMALL
BELOW = CODES._replace(context=(Spec("token", (1, 1), 4), Spec("token", (1, 2), 4)))
MIX = {"model": "mixture", "components": 3, "batch_size": 6, "log_every": 4}
GAUSSIAN = MIX | {"likelihood": "gaussian"}
TEXT = {"model": "text", "latent_dims": (2,), "embedding_dim": 3, "width": 4, "layers": 1} | SMALL
TEXT |= {"k": 3, "eval_k": 6}
GRADIENT = {"fit": "gradient"} | SMALL
# Name -> the configuration's values and the data.
CASES: dict[str, tuple[dict, Spec]] = {
    "mlp": (MLP | {"latent_dims": (2,)}, BINARY),
    "mlp, two layers": (MLP | {"latent_dims": (3, 2), "upper_hidden_dims": (4,)}, BINARY),
    "mlp, real numbers": (MLP | {"latent_dims": (2,), "likelihood": "gaussian"}, REAL),
    "mlp, autoencoder": (
        {"objective": AUTOENCODER, "hidden_dims": (8,), "latent_dims": (2,)} | SMALL,
        BINARY,
    ),
    "mlp, gan": ({"objective": GAN, "hidden_dims": (8,), "latent_dims": (2,)} | SMALL, BINARY),
    "conv": (CONV, BINARY),
    "conv, gan, wasserstein": (
        {"model": "conv", "channels": (4, 6), "latent_dims": (2,), "objective": GAN}
        | {"gan_loss": "wasserstein"}
        | SMALL,
        BINARY,
    ),
    "conv, colours": (CONV | {"likelihood": "discretized_logistic", "norm": "group"}, COLOUR),
    "sbn": (SBN, BINARY),
    "sbn, learned baseline": (SBN | {"estimator": "score", "score_baseline": "network"}, BINARY),
    "pixelcnn": (PIXELS, BINARY),
    "pixelcnn, codes": (PIXELS | {"embedding_dim": 3}, CODES),
    "pixelrnn": (RECURRENT, BINARY),
    "pixelvae": (
        PIXELVAE | {"decoder_dropout": 0.3, "encoder_steps": 2, "condition": "label"},
        LABELLED,
    ),
    "vqvae": (VQ, BINARY),
    "vqvae, learned codebook": (VQ | {"codebook": "loss"}, BINARY),
    "mixture, EM": (MIX, BINARY),
    "mixture, EM, full": (GAUSSIAN, REAL),
    "mixture, gradient, diagonal": (GAUSSIAN | GRADIENT | {"covariance": "diagonal"}, REAL),
    "mlp, full covariance, mixture prior": (
        MLP | {"latent_dims": (2,), "posterior": "full", "prior": "mixture", "estimator": "dreg"},
        BINARY,
    ),
    "mlp, two layers, full covariance": (
        MLP | {"latent_dims": (3, 2), "upper_hidden_dims": (4,), "posterior": "full"},
        BINARY,
    ),
    "mlp, predicted variance": (
        MLP | {"latent_dims": (2,), "likelihood": "gaussian_predicted"},
        REAL,
    ),
    "conv, low rank, VampPrior, colours": (
        CONV
        | {"posterior": "lowrank", "prior": "vamp", "prior_components": 4}
        | {"likelihood": "logistic_mixture", "likelihood_components": 2, "estimator": "stl"},
        COLOUR,
    ),
    "mlp, flows": (
        MLP
        | {"latent_dims": (2,), "posterior": "iaf", "posterior_width": (4,), "estimator": "dreg"}
        | {"prior": "flow", "prior_depth": 2, "prior_width": (4,)},
        BINARY,
    ),
    "mlp, flows, free bits": (
        MLP
        | {"latent_dims": (2,), "posterior": "iaf", "posterior_width": (4,), "min_kl": 0.1}
        | {"objective": "free_bits_batch", "estimator": "reparam"}
        | {"prior": "flow", "prior_flow": "affine", "prior_depth": 1, "prior_width": (4,)},
        BINARY,
    ),
    "flow, variational": (
        {"model": "flow", "dequantization": "variational", "k": 3, "eval_k": 6}
        | {"prior_flow": "affine", "prior_depth": 2, "prior_width": (4,), "noise_width": (4,)}
        | SMALL,
        BINARY,
    ),
    "vqvae, categorical": (VQ | {"likelihood": "categorical"}, COLOUR),
    "vqvae, two levels": (VQ | {"code_levels": 2, "codebook": "loss"}, BINARY),
    "pixelcnn, codes given those above": (PIXELS | {"embedding_dim": 3}, BELOW),
    "text": (
        TEXT | {"text_decoder": "autoregressive", "decoder_dropout": 0.3, "objective": "iwae"},
        LINES,
    ),
    "mlp, labels": (MLP | {"latent_dims": (2,), "condition": "label"}, LABELLED),
    "conv, labels": (CONV | {"condition": "label"}, LABELLED),
    "pixelcnn, labels": (PIXELS | {"condition": "label"}, LABELLED),
}
# Compiled by the slow tests alone: their parts are tested with the models.
SLOW = (
    "mlp, real numbers",
    "mlp, two layers",
    "mlp, gan",
    "conv, gan, wasserstein",
    "conv, colours",
    "sbn, learned baseline",
    "pixelcnn, codes",
    "pixelrnn",
    "pixelvae",
    "vqvae, learned codebook",
    "mixture, EM, full",
    "mixture, gradient, diagonal",
    "mlp, full covariance, mixture prior",
    "mlp, two layers, full covariance",
    "mlp, predicted variance",
    "conv, low rank, VampPrior, colours",
    "mlp, flows",
    "mlp, flows, free bits",
    "flow, variational",
    "vqvae, categorical",
    "vqvae, two levels",
    "pixelcnn, codes given those above",
    "text",
    "mlp, labels",
    "conv, labels",
    "pixelcnn, labels",
)
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]


def examples(spec: Spec, number: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    if spec.kind == "token":
        x = rng.integers(0, spec.levels, (number, spec.dim)).astype(np.int32)
    elif spec.kind == "real":
        x = rng.normal(size=(number, spec.dim)).astype(np.float32)
    else:
        levels = rng.integers(0, spec.levels, (number, spec.dim))
        x = (levels / (spec.levels - 1)).astype(np.float32)
    label = None if spec.classes is None else jnp.arange(number) % spec.classes
    context = None
    if spec.context:
        context = jnp.asarray(rng.integers(0, 4, (number, sum(s.dim for s in spec.context))))
    return Batch(jnp.asarray(x), label, context=context)


class Case:
    """A method at its initial params, with its compiled functions."""

    def __init__(self, name: str):
        values, self.spec = CASES[name]
        binarization = "dynamic" if self.spec.levels == 2 else "none"
        self.config = configs.make(**values, binarization=binarization)
        self.method = methods.make(self.config, self.spec, 6)
        self.batch = examples(self.spec)
        # One class for all draws, where there are classes, and the same codes above.
        self.given = NOTHING_GIVEN
        if self.spec.classes is not None:
            self.given = Given(label=jnp.array(1))
        if self.spec.context:
            self.given = Given(context=self.batch.context[0])
        self.init = jax.jit(self.method.init)
        self.params, self.stats = self.init(jax.random.key(0), self.batch)
        self.hparams = hyper.hyperparameters([self.config])
        self.loss = jax.jit(self.method.loss)
        self.measure = jax.jit(self.method.measure)


@functools.cache
def case_of(name: str) -> Case:
    return Case(name)


@pytest.fixture(params=NAMES)
def case(request) -> Case:
    return case_of(request.param)


def test_every_family_is_here():
    assert {configs.make(**values).model for values, _ in CASES.values()} == set(MODELS)


def test_init_is_a_function_of_its_key(case):
    again = case.init(jax.random.key(0), case.batch)
    chex.assert_trees_all_equal((case.params, case.stats), again)
    other = case.init(jax.random.key(1), case.batch)
    # Params, or, of a method without any, its stats.
    drawn = [tree if jax.tree.leaves(tree[0]) else tree[1] for tree in (again, other)]
    leaves = zip(*map(jax.tree.leaves, drawn), strict=True)
    assert any(not np.array_equal(a, b) for a, b in leaves)
    chex.assert_tree_all_finite((case.params, case.stats))


def test_a_loss_has_values_for_each_example_and_an_update_keeps_the_stats_shapes(case):
    loss = case.loss(jax.random.key(1), case.params, case.stats, case.batch, case.hparams)
    chex.assert_shape([loss.loss, *loss.terms.values()], (6,))
    chex.assert_tree_shape_prefix(loss.observed, (6,))
    stats, terms = case.stats, {}
    if case.method.update is not None:
        update = jax.jit(case.method.update)
        stats, terms = update(jax.random.key(2), case.params, stats, loss.observed)
    assert {*loss.terms, *terms} == set(case.method.terms)
    chex.assert_shape(list(terms.values()), ())
    chex.assert_type([loss.loss, *loss.terms.values(), *terms.values()], np.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(stats, case.stats)
    chex.assert_tree_all_finite((loss, stats, terms))


def test_a_compiled_loss_is_the_loss(case):
    arguments = (case.params, case.stats, case.batch, case.hparams)
    with jax.disable_jit():
        plain = case.method.loss(jax.random.key(1), *arguments)
    compiled = case.loss(jax.random.key(1), *arguments)
    chex.assert_trees_all_close(plain, compiled, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_finite_and_moves_every_network(case):
    def mean_loss(params):
        loss = case.method.loss(jax.random.key(1), params, case.stats, case.batch, case.hparams)
        return jnp.mean(loss.loss)

    grads = jax.jit(jax.grad(mean_loss))(case.params)
    chex.assert_tree_all_finite(grads)
    for part in grads:
        leaves = jax.tree.leaves(grads[part])
        # A codebook of moving averages lies in stats; a flat prior has no parameters.
        if leaves and not (part == "codebook" and case.config.model_options.codebook == "ema"):
            assert any(np.any(leaf != 0) for leaf in leaves), part


def test_measured_quantities_are_known_and_of_each_example(case):
    measured = case.measure(jax.random.key(2), case.params, case.stats, case.batch)
    numbers = {name for name, array in measured.items() if array.ndim == 1}
    assert numbers <= set(QUANTITIES)
    assert case.method.headline in (numbers if case.config.objective != GAN else {None})
    assert all(len(array) == 6 for array in measured.values())
    chex.assert_tree_all_finite(measured)
    assert case.method.measure_batch >= 1


def test_an_example_is_measured_as_it_is_alone(case):
    """Quantities with draws are left out: they depend on the batch through their keys."""
    together = case.measure(jax.random.key(2), case.params, case.stats, case.batch)
    exact = set(together) & {"log_px", "log_px_mean", "log_px_code", "means_1", "codes", "codes_2"}
    if getattr(case.config.model_options, "posterior", None) == "iaf":
        exact -= {"means_1"}  # means of draws
    example = jax.tree.map(lambda array: array[2:3], case.batch)
    alone = case.measure(jax.random.key(2), case.params, case.stats, example)
    for name in exact:
        np.testing.assert_allclose(together[name][2:3], alone[name], rtol=1e-4, atol=1e-4)


def test_distributions_of_a_batch_are_those_of_its_examples(case):
    model = models.make(case.config, case.spec)
    x, params = case.batch.x, case.params
    if isinstance(model, Density | EMMixture):

        def log_prob(x):
            return model.distribution(params, case.stats, case.given).log_prob(x)

    elif isinstance(model, Model):
        draws = model.prior(params, case.given).sample(jax.random.key(3), (1,))

        def log_prob(x):
            # The same z for every example.
            batch = x.shape[:-1]
            z = jax.tree.map(lambda z_1: jnp.broadcast_to(z_1[0], (*batch, z_1.shape[-1])), draws)
            return model.likelihood(params, z, case.given).log_prob(x)

    else:

        def log_prob(x):
            features, vectors = model.features(params, x, case.given), ()
            for _ in model.grids:
                vectors = (*vectors, model.vectors(params, features, vectors))
            return model.likelihood(params, vectors, case.given).log_prob(x)

    alone = np.stack([log_prob(row) for row in x])
    np.testing.assert_allclose(log_prob(x), alone, rtol=1e-4, atol=1e-4)


def test_samples_and_pictures_lie_in_the_support(case):
    drawn = {}
    if case.method.sample is not None:
        arguments = (jax.random.key(4), case.params, case.stats, 3, case.given)
        drawn["sample"] = case.method.sample(*arguments)
        chex.assert_shape(drawn["sample"], (3, case.spec.dim))
    for name, picture in case.method.pictures.items():
        draw = jax.jit(picture.draw)
        drawn[name] = draw(jax.random.key(5), case.params, case.stats, case.batch)
        assert drawn[name].shape[1:] == (case.spec.dim,)
        assert not picture.beside_inputs or len(drawn[name]) == 6
    assert drawn
    for x in drawn.values():
        chex.assert_tree_all_finite(x)
        if case.spec.kind == "image":
            assert np.all((np.asarray(x) >= 0) & (np.asarray(x) <= 1))
        if case.spec.kind == "token":
            assert np.issubdtype(x.dtype, np.integer)
            assert np.all((np.asarray(x) >= 0) & (np.asarray(x) < case.spec.levels))


def test_what_is_encoded_can_be_decoded(case):
    method = case.method
    if method.encode is None:
        pytest.skip("the method has no codes")
    code = jax.jit(method.encode)(case.params, case.stats, case.batch)
    if not method.code_specs:
        chex.assert_rank(code, 2)
        chex.assert_type(code, np.float32)
    else:
        chex.assert_shape(code, (6, sum(spec.dim for spec in method.code_specs)))
        chex.assert_type(code, np.int32)
        assert np.all((np.asarray(code) >= 0) & (np.asarray(code) < method.code_specs[0].levels))
    # `encode` returns the means of the lowest stochastic layer; `decode` takes all layers.
    if len(getattr(case.config.model_options, "latent_dims", (1,))) == 1:
        law = method.decode(case.params, case.stats, code, case.given)
        chex.assert_shape(law.log_prob(case.batch.x), (6,))


@functools.cache
def trained(name: str) -> tuple[Case, list]:
    """Forty steps on one batch, without drawing it anew."""
    case = case_of(name)
    config = configs.replace(case.config, epochs=40, binarization="none")
    loop = training.make_loop(config, case.method, 6, case.spec.kind)
    keys = training.base_keys([config])
    state = loop.init(keys, case.batch)
    stored = case.batch
    if case.spec.kind == "image" and case.spec.levels == 256:
        stored = Batch(jnp.round(255 * case.batch.x).astype(jnp.uint8))
    records = []
    for record in training.fit(config, loop, stored, state, keys):
        host = jax.tree.map(np.array, record.state)
        records.append(record._replace(state=host))
    return case, records


# The networks of these two compile for the longest.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("pixelcnn", "vqvae") else name
        for name in NAMES
    ],
)
def test_training_lowers_the_loss_of_one_batch_and_its_state_can_be_stored(name, tmp_path):
    case, records = trained(name)
    assert all(int(record.failed_at) < 0 for record in records)
    first, last = records[0].metrics, records[-1].metrics
    term = case.method.terms[0]
    sign = -1 if term in ("loss", "nll") else 1  # other first terms rise
    if case.config.objective == GAN:  # the two losses rise and fall against each other
        assert all(last[term] != first[term] for term in case.method.terms)
    else:
        assert sign * (last[term] - first[term]) > 0
    state = jax.tree.map(jnp.array, records[-1].state)
    checkpoint.save(tmp_path, 40, state)
    step, restored = checkpoint.restore(tmp_path, state)
    assert step == 40
    chex.assert_trees_all_equal(restored, state)
