"""What is shown of a latent space: paths in closed form, decoded points against NumPy."""

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

import elbo_lab
from elbo_lab.cli import latent_flags
from elbo_lab.errors import UserError
from elbo_lab.models.base import Given
from elbo_lab.runs import examples, geometry
from tests.runs.test_loading import store

pytestmark = pytest.mark.usefixtures("fast_compilation")


SIZES = {"latent_dims": (2,), "hidden_dims": (4,), "k": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A VAE of 5 x 6 images with two latents, with its initial parameters."""
    folder = tmp_path_factory.mktemp("geometry")
    rng = np.random.default_rng(0)
    images = {f"x_{s}": rng.integers(0, 256, (9, 5, 6), np.uint8) for s in ("train", "test")}
    labels = {f"y_{s}": np.arange(9) % 3 for s in ("train", "test")}
    np.savez(folder / "noise.npz", **images, **labels)
    jax.config.update("jax_disable_most_optimizations", True)
    return elbo_lab.load(store(folder / "vae", dataset=str(folder / "noise.npz"), **SIZES))


def decoded(trained, z: np.ndarray) -> np.ndarray:
    """The means of p(x|z) in float64, [..., 5, 6]."""
    decoder = trained.params["decoder"]
    for layer in (decoder["trunk"]["hidden_0"], decoder["logits"]):
        kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
        z = z @ kernel + bias
        z = np.tanh(z) if layer is not decoder["logits"] else expit(z)
    return z.reshape(*z.shape[:-1], 5, 6)


def means(trained) -> np.ndarray:
    """E[z|x] of the test examples, [9, 2]."""
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    return np.asarray(trained.encode(test.x), np.float64)


def test_a_spherical_path_is_an_arc_and_a_linear_one_its_chord():
    weights = np.linspace(0, 1, 5)
    start, end = np.array([2.0, 0.0, 0.0]), np.array([0.0, 0.0, 2.0])
    angles = weights * np.pi / 2
    arc = np.stack([2 * np.cos(angles), 0 * angles, 2 * np.sin(angles)], axis=1)
    np.testing.assert_allclose(geometry.spherical(start, end, weights), arc, atol=1e-12)
    chord = np.stack([2 - 2 * weights, 0 * weights, 2 * weights], axis=1)
    np.testing.assert_allclose(geometry.linear(start, end, weights), chord)


@pytest.mark.parametrize("end", [[3.0, 6.0], [-1.0, -2.0], [0.0, 0.0]])
def test_vectors_on_one_line_have_a_straight_path(end):
    weights, start = np.linspace(0, 1, 4), np.array([1.0, 2.0])
    path = geometry.spherical(start, np.array(end), weights)
    np.testing.assert_allclose(path, start + weights[:, None] * (np.array(end) - start))


def test_interpolations_decode_both_paths_between_the_means(trained):
    arrays = geometry.show(trained, "interpolation", jax.random.key(0), (3, 5, 0, 1)).arrays
    z = means(trained)
    for row, (first, second) in enumerate([(3, 5), (0, 1)]):
        np.testing.assert_allclose(arrays["z_linear"][row, [0, -1]], z[[first, second]], rtol=1e-5)
        middle = decoded(trained, (z[first] + z[second]) / 2)
        np.testing.assert_allclose(arrays["linear"][row, 5], middle, rtol=1e-4)
        np.testing.assert_allclose(arrays["spherical"][row, 0], decoded(trained, z[first]), 1e-4)
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    np.testing.assert_array_equal(arrays["inputs"][1, 1], np.asarray(test.x[1]).reshape(5, 6))


def test_a_traversal_moves_one_latent_by_standard_deviations_of_the_means(trained):
    shown = geometry.show(trained, "traversal", jax.random.key(0), (4,))
    z = means(trained)
    scales = z.std(axis=0)
    latents = np.argsort(-scales)
    np.testing.assert_array_equal(shown.arrays["latents"], latents)
    for row, latent in enumerate(latents):
        ends = np.stack([z[4], z[4]])
        ends[:, latent] += np.array([-3, 3]) * scales[latent]
        x = shown.arrays["x"][row]
        np.testing.assert_allclose(x[[0, -1]], decoded(trained, ends), rtol=1e-4)
        np.testing.assert_allclose(x[5], decoded(trained, z[4]), rtol=1e-4)
    assert shown.about == "traversals of the 2 latents around test example 4"


def test_the_plane_decodes_quantiles_of_the_prior_and_the_map_has_means_and_labels(trained):
    arrays = geometry.show(trained, "plane", jax.random.key(0), None).arrays
    quantiles = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    np.testing.assert_allclose(arrays["axes"], [quantiles, quantiles], rtol=1e-5)
    point = np.array([quantiles[3], quantiles[17]])  # z_1 first
    np.testing.assert_allclose(arrays["x"][3, 17], decoded(trained, point), rtol=1e-4)
    arrays = geometry.show(trained, "map", jax.random.key(0), None).arrays
    np.testing.assert_allclose(arrays["means"], means(trained), rtol=1e-5)
    np.testing.assert_array_equal(arrays["labels"], np.arange(9) % 3)


@pytest.mark.slow
def test_draws_that_share_z_have_the_mean_of_p_of_x_given_it(trained):
    arrays = geometry.show(trained, "shared_z", jax.random.key(0), [7] * 100 + [2]).arrays
    z = means(trained)
    np.testing.assert_allclose(arrays["z"], z[[7] * 100 + [2]], rtol=1e-5)
    assert arrays["x"].shape == (101, geometry.SHARED_DRAWS, 5, 6)
    assert set(np.unique(arrays["x"])) == {0, 1}
    draws = arrays["x"][:100].reshape(-1, 5, 6)  # 800 draws of one z
    mean = decoded(trained, z[7])
    error = 4.5 * np.sqrt(mean * (1 - mean) / len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - mean) < error)


@pytest.mark.slow
def test_the_plane_of_other_priors_has_their_quantiles_and_codes_have_their_own(trained, tmp_path):
    data = {"dataset": trained.config.dataset}
    code = elbo_lab.load(
        store(tmp_path / "code", objective="autoencoder", **data, **SIZES | {"k": None})
    )
    levels = (np.arange(20) + 0.5) / 20
    axes = geometry.show(code, "plane", jax.random.key(0), None).arrays["axes"]
    np.testing.assert_allclose(axes, np.quantile(means(code), levels, axis=0).T, rtol=1e-4)

    def moved(state):
        prior = state.params["prior"]
        prior = prior | {"means": prior["means"] * 0 + np.array([1.0, -2.0], np.float32)}
        return state._replace(params=state.params | {"prior": prior})

    settings = {"prior": "mixture", "kl": "mc", "changed": moved}
    mixed = elbo_lab.load(store(tmp_path / "mixed", objective="elbo", **data, **settings, **SIZES))
    axes = geometry.show(mixed, "plane", jax.random.key(0), None).arrays["axes"]
    # All components at one place with the standard deviation sqrt(3/4); 10,000 draws.
    expected = np.array([[1.0], [-2.0]]) + np.sqrt(0.75) * stats.norm.ppf(levels)
    np.testing.assert_allclose(axes, expected, atol=0.12)


@pytest.mark.slow
def test_with_two_layers_all_is_about_the_lower_one(trained, tmp_path):
    sizes = SIZES | {"latent_dims": (2, 3), "upper_hidden_dims": (4,)}
    run = elbo_lab.load(store(tmp_path / "two", dataset=trained.config.dataset, **sizes))
    arrays = geometry.show(run, "traversal", jax.random.key(0), (0,)).arrays
    np.testing.assert_allclose(arrays["x"][0, 5], decoded(run, means(run)[0]), rtol=1e-4)
    with pytest.raises(UserError, match="needs --latent_dims=2; .*two has latent_dims=2,3"):
        geometry.show(run, "map", jax.random.key(0), None)


@pytest.mark.slow
def test_discrete_latents_are_refused(trained, tmp_path):
    sizes = {"dataset": trained.config.dataset, "latent_dims": (2,), "k": 3}
    run = elbo_lab.load(store(tmp_path / "sbn", model="sbn", **sizes))
    with pytest.raises(UserError, match=r"is a run of sbn, and those of sbn are discrete\.$"):
        geometry.show(run, "plane", jax.random.key(0), None)


def test_the_flag_has_the_choices_of_the_library():
    assert list(latent_flags.SHOWS) == [latent_flags.SAMPLES, *geometry.SHOWS]


def test_the_plane_of_a_conditional_model_is_that_of_one_class(trained, tmp_path):
    run = elbo_lab.load(store(tmp_path, dataset=trained.config.dataset, condition="label", **SIZES))
    space = geometry.show(run, "plane", jax.random.key(0), None, label=2)
    assert space.about.endswith("the latent plane, class 2")
    z = space.arrays["z"].reshape(-1, 2)
    given = run.method.decode(run.params, (), z, Given(label=np.full(len(z), 2)))
    expected = expit(np.asarray(given.logits, np.float64)).reshape(20, 20, 5, 6)
    np.testing.assert_allclose(space.arrays["x"], expected, rtol=1e-4)
    other = geometry.show(run, "plane", jax.random.key(0), None).arrays["x"]
    assert np.max(np.abs(other - expected)) > 1e-3  # class 0
    assert geometry.show(run, "map", jax.random.key(0), None).arrays["means"].shape == (9, 2)
    with pytest.raises(UserError, match=r"--label must lie in 0..2 for .*; got 3"):
        geometry.show(run, "plane", jax.random.key(0), None, label=3)
    with pytest.raises(UserError, match="--label=0 needs a run with --condition=label"):
        geometry.show(trained, "plane", jax.random.key(0), None, label=0)


def test_a_run_without_codes_is_refused_with_the_reason(trained):
    without = trained._replace(method=trained.method._replace(encode=None))
    with pytest.raises(UserError) as error:
        geometry.show(without, "traversal", jax.random.key(0), None)
    assert str(error.value).endswith("is a run of mlp, and mlp has none.")


def test_a_gan_has_a_plane_and_no_means(trained, tmp_path):
    settings = SIZES | {"objective": "gan", "k": None, "dataset": trained.config.dataset}
    gan = elbo_lab.load(store(tmp_path / "gan", **settings))
    arrays = geometry.show(gan, "plane", jax.random.key(0), None).arrays
    quantiles = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    point = np.array([quantiles[3], quantiles[17]])
    np.testing.assert_allclose(arrays["x"][3, 17], decoded(gan, point), rtol=1e-4)
    with pytest.raises(UserError) as error:
        geometry.show(gan, "traversal", jax.random.key(0), None)
    assert str(error.value) == (
        f"--show=traversal needs the means of q(z|x); {gan.path} is a run of --objective=gan, "
        "which encodes nothing: use --show=samples or, of two latents, --show=plane."
    )
