"""Networks of the VQ-VAE: shapes of any image, laws, locality, refusals, training."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.methods import vqvae
from elbo_lab.models import laws
from elbo_lab.models.base import Given
from elbo_lab.models.vqvae import CODEBOOKS, VQVAEOptions, make

pytestmark = pytest.mark.usefixtures("fast_compilation")

SMALL = {"num_codes": 4, "code_dim": 2, "channels": (3, 4), "residual_blocks": 1}
# Any size and colour, and the grid of codes: each halving rounds up.
IMAGES = {
    "grey": (Spec("image", (62, 5), 256), (16, 2)),
    "colour": (Spec("image", (4, 6, 3), 256), (1, 2)),
}


@functools.cache
def small(name: str, **changes):
    """A model, its params, and the mean image that they started at."""
    spec, _ = IMAGES[name]
    model = make(VQVAEOptions(**SMALL, **changes), spec)
    mean = np.linspace(0.1, 0.9, spec.dim, dtype=np.float32)
    return model, jax.jit(model.init)(jax.random.key(0), Batch(images(name, 6)), mean), mean


def images(name: str, *batch: int) -> np.ndarray:
    grey = np.random.default_rng(0).integers(0, 256, (*batch, IMAGES[name][0].dim))
    return grey.astype(np.float32) / 255


@pytest.mark.parametrize(
    "law, name",
    [
        ("bernoulli", "grey"),
        ("discretized_logistic", "colour"),
        pytest.param("gaussian", "grey", marks=pytest.mark.slow),
        pytest.param("continuous_bernoulli", "colour", marks=pytest.mark.slow),
    ],
)
def test_shapes_and_laws_for_any_image_and_leading_dimensions(law, name):
    _, code_shape = IMAGES[name]
    model, params, start = small(name, likelihood=law)
    assert model.grids == (code_shape,)
    x = images(name, 2, 3)

    @jax.jit
    def forward(params, x):
        vectors = model.vectors(params, model.features(params, x, Given()), ())
        p_x = model.likelihood(params, (vectors,), Given())
        return vectors, p_x.mean, p_x.log_prob(x)

    vectors, mean, log_px = forward(params, x)
    assert vectors.shape == (2, 3, math.prod(code_shape), 2)
    assert mean.shape == x.shape and log_px.shape == (2, 3)
    assert np.all(np.isfinite(log_px))
    likelihood = laws.make(VQVAEOptions(likelihood=law), IMAGES[name][0])
    np.testing.assert_allclose(
        params["decoder"][likelihood.heads[0].name]["bias"], likelihood.bias(start), rtol=1e-5
    )
    if name == "grey":
        # Vectors are cells row by row: a change of the last rows of a tall image reaches the last
        # vectors and not the first.
        changed = x.copy().reshape(2, 3, 62, 5)
        changed[:, :, -8:] = 1 - changed[:, :, -8:]
        other, _, _ = forward(params, changed.reshape(x.shape))
        differs = np.any(vectors != other, axis=(0, 1, 3))
        assert not differs[:16].any() and differs[-4:].all()


@pytest.mark.slow
def test_a_lower_level_sees_the_codes_above_it_and_the_image_all_codes():
    model, params, _ = small("grey", code_levels=3)
    assert model.grids == ((4, 1), (8, 1), (16, 2))
    x, rng = images("grey", 2), np.random.default_rng(1)
    codes = tuple(rng.normal(size=(2, h * w, 2)).astype(np.float32) for h, w in model.grids)

    @jax.jit
    def forward(x, *codes):
        features = model.features(params, x, Given())
        vectors = [model.vectors(params, features, codes[:level]) for level in range(3)]
        return vectors, model.likelihood(params, codes, Given()).mean

    vectors, mean = forward(x, *codes)
    assert [v.shape for v in vectors] == [c.shape for c in codes]
    for level in range(3):
        changed = [c + (i == level) for i, c in enumerate(codes)]
        others, other_mean = forward(x, *changed)
        differs = [bool(np.any(a != b)) for a, b in zip(vectors, others, strict=True)]
        assert differs == [below > level for below in range(3)]
        assert np.any(mean != other_mean)
    # The last rows of a tall image reach the last vectors of each level, and not the first ones of
    # the lowest.
    changed = x.copy().reshape(2, 62, 5)
    changed[:, -8:] = 1 - changed[:, -8:]
    others, _ = forward(changed.reshape(x.shape), *codes)
    differs = [np.any(a != b, axis=(0, 2)) for a, b in zip(vectors, others, strict=True)]
    assert all(level[-1] for level in differs) and not differs[2][:16].any()


@pytest.mark.slow
@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_training_lowers_the_loss_and_keeps_state_finite(codebook):
    spec, _ = IMAGES["colour"]
    options = VQVAEOptions(
        **SMALL,
        codebook=codebook,
        restart_below=0.5,
        codebook_decay=0.8,
        output_bias="zero",
        activation="silu",  # of three units by relu, all may be dead
    )
    method = vqvae.make(make(options, spec), options, spec)
    # Three black and three white images: one code of four tells them apart.
    batch = Batch(np.repeat(np.float32([[0], [1]]), [3, 3], axis=0) * np.ones(spec.dim, np.float32))
    params, stats = jax.jit(method.init)(jax.random.key(0), batch)
    assert not np.any(params["decoder"]["logits"]["bias"])
    optimizer = optax.adam(1e-2)

    def step(state, key):
        params, opt_state, stats = state

        def mean_loss(params):
            out = method.loss(None, params, stats, batch, {"commitment": jnp.float32(0.25)})
            return jnp.mean(out.loss), out

        grads, out = jax.grad(mean_loss, has_aux=True)(params)
        stats, terms = method.update(key, params, stats, out.observed)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state, stats), out.terms | terms

    keys = jax.random.split(jax.random.key(1), 60)
    state = params, optimizer.init(params), stats
    state, terms = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))(state, keys)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    losses = np.mean(terms["loss"], axis=1)
    assert losses[-1] < 0.5 * losses[0]
    assert np.all(terms["perplexity"] <= 4 + 1e-5) and np.all(terms["perplexity"] >= 1)


@pytest.mark.parametrize(
    "changes, spec, message",
    [
        ({}, Spec("token", (7, 7), 16), "The model vqvae takes images, not tokens."),
        ({}, Spec("real", (20,), None), r"not the shape \(20,\)"),
        ({"channels": ()}, Spec("image", (4, 4), 2), "channels is empty"),
        (
            {"code_levels": 5},
            Spec("image", (28, 28), 2),
            r"code_levels must be at most 4, since channels=32,64 take images of \(28, 28\) to a "
            "grid of 7 x 7, which each further level halves; got 5.",
        ),
        ({"code_levels": 2, "channels": (4,)}, Spec("image", (1, 2), 2), "at most 1, .* 1 x 1"),
    ],
)
def test_unsupported_data_and_options_are_refused(changes, spec, message):
    with pytest.raises(ValueError, match=message):
        make(VQVAEOptions(**changes), spec)
