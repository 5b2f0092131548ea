"""Loading stored runs, and data sets made from them: values against NumPy, damage, refusals."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbo_lab
from elbo_lab import configs, data, methods, training
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.models.conditions import is_conditional
from elbo_lab.runs import derived, examples, rundir
from elbo_lab.training import checkpoint

pytestmark = pytest.mark.usefixtures("fast_compilation")

# 2 x 2 codes of 5 x 6 images.
SIZES = {"channels": (3, 3), "num_codes": 5, "code_dim": 2, "residual_blocks": 0}
NUM_TRAIN, NUM_TEST = 12, 7


def store(
    path,
    step: int | None = None,
    failed_at: list[int] | None = None,
    changed=lambda state: state,
    **settings,
):
    """Writes a run's directory with initial parameters.

    Args:
      path: the directory.
      step: of the checkpoint; the run's last one if not given.
      failed_at: the step at which each replicate diverged, -1 if it did not.
      changed: the initial state -> the state that is saved.
      **settings: of the config.
    """
    config = configs.make(epochs=1, batch_size=4, eval_k=6, **settings)
    dataset = data.load(config.dataset, resolve=derived.load)
    spec = data.spec_of(dataset, config.binarization)
    number = len(dataset.x_train)
    loop = training.make_loop(config, methods.make(config, spec, number), number, spec.kind)
    keys = training.base_keys(training.replicas(config))
    state = loop.init(keys, *examples.first_rows(dataset))
    if failed_at is not None:
        failure = state.failure._replace(step=jnp.array(failed_at, jnp.int32))
        state = state._replace(failure=failure)
    step = training.total_steps(config, number) if step is None else step
    digest = data.digest(dataset, is_conditional(config.model_options))
    with rundir.claim(str(path), config, digest, overwrite=True) as workdir:
        checkpoint.save(workdir / rundir.CHECKPOINTS, step, (changed(state), keys))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a file of images, and a VQ-VAE and a VAE trained on them."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    splits = {"train": NUM_TRAIN, "test": NUM_TEST}
    images = {f"x_{s}": rng.integers(0, 256, (n, 5, 6), np.uint8) for s, n in splits.items()}
    labels = {f"y_{s}": np.arange(n) % 3 for s, n in splits.items()}
    dataset = str(folder / "noise.npz")
    np.savez(dataset, **images, **labels)
    jax.config.update("jax_disable_most_optimizations", True)
    store(folder / "vqvae", model="vqvae", dataset=dataset, **SIZES)
    store(folder / "vae", dataset=dataset, latent_dims=(2,), hidden_dims=(4,), k=3)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of that folder; its runs still read the original file of images."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


# `elbo_lab.load`


def test_encode_sample_and_measure_take_user_arrays(made):
    trained = elbo_lab.load(made / "vae")
    lit = np.random.default_rng(1).random((4, 5, 6)) > 0.5
    as_levels = 255 * lit.astype(np.uint8)
    z = np.asarray(trained.encode(as_levels))
    assert z.shape == (4, 2)
    for same in (lit.astype(np.float32), lit.astype(float).reshape(4, 30), lit):
        np.testing.assert_array_equal(trained.encode(same), z)
    posterior = trained.method.posterior(trained.params, trained.stats, trained.batch(lit))
    np.testing.assert_allclose(z, posterior.mean, rtol=1e-5, atol=1e-6)
    x = trained.sample(jax.random.key(0), 3)
    assert x.shape == (3, 5, 6)
    assert np.all((x > 0) & (x < 1))
    measured = trained.measure(jax.random.key(0), as_levels)
    again = trained.measure(jax.random.key(0), lit.reshape(4, 30))
    assert measured["log_likelihood"].shape == (4,)
    assert measured.keys() == again.keys()
    for name in measured:
        np.testing.assert_array_equal(measured[name], again[name])
    # L_K >= the mean log-weight of the same draws, by Jensen; log p(x) of binary images is below 0.
    assert np.all(measured["elbo"] <= measured["log_likelihood"] + 1e-5)
    assert np.all(measured["log_likelihood"] < 0)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            np.zeros((2, 29)),
            r"30 values per example, in the shape \[N, D\] or \[N, 5, 6\]; got the shape \(2, 29",
        ),
        (np.zeros(30), r"got the shape \(30,\)"),
        (np.zeros((0, 30)), r"got the shape \(0, 30\)"),
        (np.full((2, 30), 255.0), r"\[0, 1\], or uint8; got float64 from 255.0 to 255.0"),
        (np.full((2, 30), 7), r"\[0, 1\], or uint8; got int64 from 7 to 7"),
        (np.full((2, 30), -0.5), "got float64 from -0.5"),
        (np.full((2, 30), np.nan), "got float64 from nan"),
    ],
    ids=["width", "one example", "none", "0..255 in floats", "integers", "negative", "nan"],
)
def test_arrays_that_are_not_examples_of_the_data_are_refused(made, x, words):
    with pytest.raises(ValueError, match=words):
        elbo_lab.load(made / "vae").encode(x)


def test_grey_levels_have_no_log_likelihood_under_a_model_of_binary_images(made):
    trained, grey = elbo_lab.load(made / "vae"), np.full((2, 30), 0.3)
    assert trained.encode(grey).shape == (2, 2)
    with pytest.raises(ValueError, match="x must be binary"):
        trained.measure(jax.random.key(0), grey)


def test_a_vqvae_encodes_to_codes_and_refuses_to_sample(made):
    trained = elbo_lab.load(str(made / "vqvae"))
    codes = np.asarray(trained.encode(trained.dataset.x_test))
    assert (codes.shape, codes.dtype) == ((NUM_TEST, 4), np.int32)
    assert codes.min() >= 0 and codes.max() < 5
    with pytest.raises(ValueError, match="vqvae gives no samples without a prior of its codes"):
        trained.sample(jax.random.key(0), 2)


def damage(folder, step: int) -> None:
    """Overwrites a file of the checkpoint of this step."""
    file = max((folder / f"step_{step:08d}").rglob("*"), key=lambda path: path.stat().st_size)
    file.write_bytes(b"\0" * file.stat().st_size)


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_loading_skips_a_damaged_checkpoint_and_changes_no_file(folder):
    vae = folder / "vae"
    checkpoints = vae / rundir.CHECKPOINTS
    whole = elbo_lab.load(vae)
    (last,) = checkpoints.glob("step_*")
    assert (last.name, whole.step) == ("step_00000003", 3)
    last.rename(checkpoints / "step_00000002")
    shutil.copytree(checkpoints / "step_00000002", last)
    damage(checkpoints, 3)
    before = contents(vae)
    with pytest.warns(DamageWarning) as caught:
        earlier = elbo_lab.load(vae)
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(f"skipped the damaged checkpoint {last}: ") and "\n" not in message
    assert contents(vae) == before
    assert (earlier.step, earlier.total_steps, earlier.digest) == (2, 3, whole.digest)
    for array, expected in zip(
        jax.tree.leaves(earlier.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(array, expected)
    damage(checkpoints, 2)
    before = contents(vae)
    with pytest.warns(DamageWarning), pytest.raises(UserError, match="none that is whole"):
        elbo_lab.load(vae)
    assert contents(vae) == before


@pytest.mark.slow
def test_a_run_with_averaged_weights_is_loaded_with_these(made, tmp_path):
    plain = elbo_lab.load(made / "vae")

    def changed(state):
        return state._replace(average=jax.tree.map(lambda p: p + 1, state.params))

    settings = {"dataset": plain.config.dataset, "latent_dims": (2,), "hidden_dims": (4,), "k": 3}
    for replicates in (1, 2):
        store(tmp_path, changed=changed, ema=0.9, replicates=replicates, **settings)
        trained = elbo_lab.load(tmp_path)
        for own, expected in zip(
            jax.tree.leaves(trained.params), jax.tree.leaves(plain.params), strict=True
        ):
            np.testing.assert_allclose(own, np.asarray(expected) + 1, rtol=1e-6)


# Data sets made from a run


@pytest.mark.slow
def test_codes_are_encoded_once_and_keep_labels_and_log_likelihoods(made):
    dataset = derived.load(f"codes:{made / 'vqvae'}")
    (file,) = (made / "vqvae" / derived.FOLDER).glob("codes-*.npz")
    trained = elbo_lab.load(made / "vqvae")
    assert (dataset.kind, dataset.levels, dataset.image_shape) == ("token", 5, (2, 2))
    np.testing.assert_array_equal(dataset.y_train, np.arange(NUM_TRAIN) % 3)
    np.testing.assert_array_equal(dataset.y_test, np.arange(NUM_TEST) % 3)
    # log p(x|codes) of Bernoulli pixels, in float64, by the means to which the codes are decoded.
    x = np.asarray(examples.test_examples(trained.config, trained.dataset, trained.spec).x)
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_array_equal(dataset.x_test, trained.encode(x))
    mean = dataset.decode(dataset.x_test).astype(np.float64)
    assert mean.shape == (NUM_TEST, 5, 6)
    log_px = np.log(np.where(x.reshape(mean.shape) == 1, mean, 1 - mean)).sum(axis=(1, 2))
    np.testing.assert_allclose(dataset.log_px_z, log_px, rtol=1e-5)
    # Read from the file, and encoded again if the file is damaged.
    content, changed = file.read_bytes(), file.stat().st_mtime_ns
    again = derived.load(f"codes:{made / 'vqvae'}")
    assert file.stat().st_mtime_ns == changed
    file.write_bytes(content[:-9])
    anew = derived.load(f"codes:{made / 'vqvae'}")
    assert file.read_bytes() == content
    for other in (again, anew):
        np.testing.assert_array_equal(other.x_train, dataset.x_train)
        np.testing.assert_array_equal(other.log_px_z, dataset.log_px_z)
        assert data.digest(other) == data.digest(dataset)


def test_features_are_means_or_draws(made):
    name = f"features:{made / 'vae'}"
    means, draws = derived.load(name), derived.load(f"{name}:sample")
    trained = elbo_lab.load(made / "vae")
    assert (means.kind, means.levels, means.image_shape) == ("real", None, (2,))
    x = examples.test_examples(trained.config, trained.dataset, trained.spec).x
    np.testing.assert_allclose(means.x_test, trained.encode(x), rtol=1e-5, atol=1e-6)
    assert draws.x_test.shape == means.x_test.shape
    assert not np.any(draws.x_test == means.x_test)
    # Standardized draws of a normal q(z|x): mean and spread of 24 + 14 of them.
    batch = examples.all_of_train(trained.config, trained.dataset, trained.spec)
    scale = np.sqrt(trained.method.posterior(trained.params, (), batch).variance)
    noise = (draws.x_train - means.x_train) / scale
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)


def refusal(name: str) -> str:
    """The message with which a data set is refused."""
    with pytest.raises(UserError) as refused:
        derived.load(name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def edit(path, **changes) -> None:
    """Changes settings in a run's config.json."""
    stored = json.loads((path / "config.json").read_text())
    stored["config"] |= changes
    (path / "config.json").write_text(json.dumps(stored))


def test_a_run_without_the_wanted_features_or_codes_is_refused(folder):
    vqvae, vae = folder / "vqvae", folder / "vae"
    assert refusal(f"codes:{vae}").endswith(f"without codes; it has features: features:{vae}.")
    assert refusal(f"features:{vqvae}").endswith(f"without features; it has codes: codes:{vqvae}.")
    assert "give the run too, as codes:RUN" in refusal("codes:")
    assert "is not a run's directory (cannot read" in refusal(f"codes:{folder / 'gone'}")
    store(vae, 1, dataset=str(folder / "noise.npz"), latent_dims=(2,), hidden_dims=(4,), k=3)
    assert f"{vae} is at step 1 of 3; train it to its end" in refusal(f"features:{vae}")


def test_a_run_whose_first_replicate_diverged_is_refused(folder):
    vae = folder / "vae"
    settings = {"dataset": str(folder / "noise.npz"), "latent_dims": (2,), "hidden_dims": (4,)}
    store(vae, failed_at=[2, -1], k=3, seed=7, replicates=2, **settings)
    assert elbo_lab.load(vae, 0).failed_at == 2
    assert elbo_lab.load(vae, 1).failed_at == -1
    assert refusal(f"features:{vae}") == (
        f"features:{vae} takes replicate 0 of the run (seed 7), which diverged at step 2; give a "
        "run whose first seed was trained to its end."
    )


def test_damaged_runs_and_those_of_another_version_are_refused(folder):
    vqvae = folder / "vqvae"
    content = (vqvae / "config.json").read_bytes()
    edit(vqvae, wings=7)
    assert "is not a run of this version" in refusal(f"codes:{vqvae}")
    assert "--model=vqvae: wings=7)" in refusal(f"codes:{vqvae}")
    edit(vqvae, wings=None, model="transformer")
    assert "got 'transformer'" in refusal(f"codes:{vqvae}")
    edit(vqvae, model="vqvae", num_codes=6)
    assert "cannot be loaded" in refusal(f"codes:{vqvae}")
    (vqvae / "config.json").write_bytes(content[:100])
    assert "is not a run's directory (" in refusal(f"codes:{vqvae}")
    (vqvae / "config.json").write_bytes(content)
    np.savez(folder / "noise.npz", x_train=np.zeros((12, 5, 6)), x_test=np.zeros((7, 5, 6)))
    edit(vqvae, dataset=str(folder / "noise.npz"))
    assert f"the examples of {folder / 'noise.npz'} have changed since" in refusal(f"codes:{vqvae}")
    shutil.rmtree(vqvae / "checkpoints")
    (vqvae / "config.json").write_bytes(content)
    assert "has no checkpoint yet" in refusal(f"codes:{vqvae}")


@pytest.mark.slow
def test_codes_of_a_run_that_was_trained_again_or_deleted_are_refused(folder):
    vqvae, settings = folder / "vqvae", {"dataset": str(folder / "noise.npz"), "model": "vqvae"}
    codes = f"codes:{vqvae}"
    stage_two = store(folder / "prior", model="pixelcnn", dataset=codes, width=4, layers=1)
    before = derived.load(codes)
    assert elbo_lab.load(stage_two).spec.kind == "token"
    store(vqvae, **settings, **SIZES, seed=1)
    after = derived.load(codes)
    # The same codes are decoded to other images: the digest includes the checkpoint's.
    digests = [
        data.digest(d._replace(x_train=before.x_train, x_test=before.x_test))
        for d in (before, after)
    ]
    sentence = f"{vqvae}, whose codes these are, was trained again since"
    for digest in (digests[1], data.digest(after)):
        assert data.changed(codes, digests[0], digest) == sentence
    with pytest.raises(UserError, match="was trained again since"):
        elbo_lab.load(stage_two)
    config = configs.from_dict(json.loads((stage_two / "config.json").read_text())["config"])
    with pytest.raises(UserError) as refused:
        with rundir.claim(str(stage_two), config, data.digest(after), overwrite=False):
            pass
    assert f"Differing fields: {sentence}." in str(refused.value)
    shutil.rmtree(vqvae)
    with pytest.raises(
        UserError, match=f"was trained on {codes}: {vqvae} is not a run's directory"
    ):
        elbo_lab.load(stage_two)
