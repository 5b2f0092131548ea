"""Models that are conditioned on labels: given a class they are models with other biases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, models
from elbo_lab.data import Batch, Spec
from elbo_lab.models import NOTHING_GIVEN, Given, conditions

pytestmark = pytest.mark.usefixtures("fast_compilation")

SPEC = Spec("image", (4, 3), 2, classes=3)
X = np.random.default_rng(0).integers(0, 2, (5, 12)).astype(np.float32)
LABEL = np.array([2, 0, 1, 1, 2])
Z = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
# The settings of each family, and paths of its layers that see a label: to the weights of the
# label, or to a kernel whose last rows are, and to the bias that they are added to.
MLP = {"latent_dims": (2,), "hidden_dims": (4,), "center_inputs": True}
CONV = {"model": "conv", "latent_dims": (2,), "channels": (4, 6)}
PIXELVAE = CONV | {"model": "pixelvae", "receptive_field": 5, "layers": 2, "width": 4}
PIXELVAE |= {"output_width": 4, "latent_features": 2}
PIXELS = {"model": "pixelcnn", "width": 4, "layers": 2, "output_width": 4, "first_kernel_size": 3}
RECURRENT = PIXELS | {"model": "pixelrnn"}
GATED = [f"gated_{i}" for i in (0, 1)]
LSTMS = [(f"recurrent_{i}", "lstm") for i in (0, 1)]
FAMILIES = {
    "mlp": (
        MLP,
        [
            (("encoder", "layer_1", "trunk", "hidden_0"), None),
            (("decoder", "trunk", "hidden_0"), None),
        ],
    ),
    "conv": (
        CONV,
        [
            (("encoder", "trunk", "down_0"), ("encoder", "trunk", "others")),
            (("decoder", "grid"), None),
        ],
    ),
    "pixelvae": (
        PIXELVAE,
        [
            (("encoder", "trunk", "down_0"), ("encoder", "trunk", "others")),
            (("decoder", "latents", "grid"), None),
        ],
    ),
    "pixelcnn": (
        PIXELS,
        [((g, layer), (g, f"label_{layer}")) for g in GATED for layer in ("above", "left")],
    ),
    "row": (
        RECURRENT,
        [((*path, "gates", "left"), (*path, "gates", "label_left")) for path in LSTMS],
    ),
    "diagonal": (
        RECURRENT | {"rnn": "diagonal"},
        [
            ((*path, side, "gates", "left"), (*path, side, "gates", "label_left"))
            for path in LSTMS
            for side in ("left", "right")
        ],
    ),
}


def made(settings: dict, condition: str) -> tuple:
    """A model and its params, all drawn at random."""
    config = configs.make(**settings, condition=condition)
    model, rng = models.make(config, SPEC), np.random.default_rng(3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(X, LABEL))
    return model, jax.tree.map(lambda p: rng.normal(0, 0.5, p.shape).astype(np.float32), shapes)


def at(params: dict, path: tuple[str, ...]) -> dict:
    """The branch of params at a path."""
    for name in path:
        params = params[name]
    return params


def without_label(params: dict, layers: list, label: int) -> dict:
    """Params of the model without labels that is the conditional one at this class."""
    params = jax.tree.map(np.copy, params)
    for path, weights in layers:
        layer = at(params, path)
        if weights is None:
            layer["kernel"], rows = np.split(layer["kernel"], [-SPEC.classes])
        else:
            rows = at(params, weights[:-1]).pop(weights[-1])["kernel"]
        layer["bias"] = layer["bias"] + rows[label]
    return params


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_given_a_class_a_model_is_one_without_labels_and_with_other_biases(family):
    settings, layers = FAMILIES[family]
    (model, params), (plain, _) = made(settings, "label"), made(settings, "none")
    assert (model.classes, plain.classes) == (3, None)

    def log_probs(model, params, x, z, given):
        if family in ("pixelcnn", "row", "diagonal"):
            return [model.distribution(params, (), given).log_prob(x)]
        laws = [model.posterior(params, x, given), model.prior(params, given)]
        likelihood = model.likelihood(params, z, given)
        return [*(law.log_prob(z) for law in laws), likelihood.log_prob(x)]

    together = log_probs(model, params, X, Z, Given(label=LABEL))
    for label in range(SPEC.classes):
        own, rows = without_label(params, layers, label), label == LABEL
        expected = log_probs(plain, own, X[rows], Z[rows], NOTHING_GIVEN)
        for values, row in zip(together, expected, strict=True):
            np.testing.assert_allclose(values[rows], row, rtol=2e-5, atol=2e-5)


def test_labels_stand_beside_an_input_of_any_leading_axes():
    values = np.random.default_rng(0).normal(size=(4, 2, 5, 3)).astype(np.float32)
    for label in (LABEL, LABEL[:1], np.array(1), LABEL[:2, None]):
        one_hot = np.eye(3)[np.broadcast_to(label, (4, 2, 5))]
        expected = np.concatenate([values, one_hot], axis=-1)
        inputs = conditions.beside(jnp.asarray(values), Given(label=label), 3)
        np.testing.assert_array_equal(inputs, expected.astype(np.float32))
    grid = conditions.beside(jnp.ones((4, 3)), Given(label=jnp.arange(3)[:, None]), 3)
    assert grid.shape == (3, 4, 6)
    assert conditions.beside(values, NOTHING_GIVEN, None) is values


def test_missing_labels_are_refused():
    model, params = made(MLP, "label")
    with pytest.raises(ValueError, match="needs the label of each example; got none"):
        model.posterior(params, X, NOTHING_GIVEN)
    for settings in (MLP, CONV, PIXELVAE, PIXELS, RECURRENT):
        config = configs.make(**settings, condition="label")
        with pytest.raises(ValueError, match="condition=label needs data with labels"):
            models.make(config, SPEC._replace(classes=None))
    vamp = configs.make(**MLP, condition="label", prior="vamp")
    with pytest.raises(ValueError, match=r"condition=label is q\(z\|u, y\)"):
        models.make(vamp, SPEC)
