"""Runs that start at another run's parameters: which these are, and what is refused."""

import jax
import numpy as np
import pytest

import elbo_lab
from elbo_lab import configs, data, methods
from elbo_lab.errors import UserError
from elbo_lab.runs import completing, derived, examples, initial, stages, text_records
from tests.runs.test_loading import store

pytestmark = pytest.mark.usefixtures("fast_compilation")
SIZES = {"hidden_dims": (4,), "latent_dims": (2,)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    """The name of a file of images."""
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    rng = np.random.default_rng(0)
    np.savez(
        path,
        x_train=rng.integers(0, 256, (12, 5, 6), np.uint8),
        x_test=np.zeros((3, 5, 6), np.uint8),
    )
    return str(path)


def started(path, name: str, **settings) -> tuple:
    """Params and stats of a new run of data `name` that starts at the run in `path`."""
    config = configs.make(dataset=name, init_from=str(path), batch_size=4, **settings)
    loaded = data.load(name, resolve=derived.load)
    spec = data.spec_of(loaded, config.binarization)
    method = methods.make(config, spec, len(loaded.x_train))
    init = initial.started(config, method, loaded, spec).init
    return init(jax.random.key(7), *examples.first_rows(loaded))


def test_a_run_starts_at_the_weights_at_which_the_other_is_evaluated(tmp_path, dataset):
    def trained(state):
        average = jax.tree.map(lambda p: p + 0.25, state.params)
        return state._replace(average=average)

    path = store(tmp_path, changed=trained, dataset=dataset, ema=0.5, replicates=2, **SIZES)
    # Another objective, estimator and optimizer: the parameters are those of the same networks.
    params, stats = started(path, dataset, objective="elbo", k=1, optimizer="sgd", seed=5, **SIZES)
    source = elbo_lab.load(path)
    jax.tree.map(np.testing.assert_array_equal, params, source.params)
    assert stats == source.stats == ()


@pytest.mark.slow
def test_the_other_run_is_read_once(tmp_path, dataset, monkeypatch):
    path = store(tmp_path / "other", dataset=dataset, **SIZES)
    settings = SIZES | {"batch_size": 4, "epochs": 1, "eval_k": 5, "k": 2}
    config = configs.make(dataset=dataset, init_from=str(path), **settings)
    read, started = [], initial.started

    def counted(*arguments):
        read.append(arguments)
        return started(*arguments)

    monkeypatch.setattr(initial, "started", counted)
    # The run ends where training begins: its state is that of the other run by then.
    monkeypatch.setattr(stages, "_train_from", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        completing.complete(
            configs.resolved(config), str(tmp_path / "new"), data.load(dataset), False
        )
    assert len(read) == 1


@pytest.mark.slow
def test_a_vqvae_starts_with_the_others_codebook(tmp_path, dataset):
    sizes = {"channels": (3, 3), "num_codes": 5, "code_dim": 2, "residual_blocks": 0}

    def trained(state):
        return state._replace(stats=jax.tree.map(lambda leaf: leaf + 1, state.stats))

    path = store(tmp_path, changed=trained, dataset=dataset, model="vqvae", **sizes)
    _, stats = started(path, dataset, model="vqvae", **sizes)
    source = elbo_lab.load(path)
    assert jax.tree.leaves(stats)
    jax.tree.map(np.testing.assert_array_equal, stats, source.stats)


@pytest.mark.slow
def test_more_images_in_a_batch_there_than_here(tmp_path, dataset):
    path = store(tmp_path, dataset=dataset, **SIZES)
    stored = configs.make(dataset=dataset, batch_size=4, **SIZES)
    few = data.load(dataset)._replace(x_train=data.load(dataset).x_train[:2])
    spec = data.spec_of(few, "dynamic")
    config = configs.replace(stored, init_from=str(path), batch_size=1)
    method = initial.started(config, methods.make(config, spec, 2), few, spec)
    params, _ = method.init(jax.random.key(0), *examples.first_rows(few))
    jax.tree.map(np.testing.assert_array_equal, params, elbo_lab.load(path).params)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            SIZES | {"latent_dims": (3,)},
            r"does not fit the model: .*is float32\[.*there and float32\[.*here",
        ),
        pytest.param(
            SIZES | {"hidden_dims": (4, 4)},
            r"does not fit the model: .*is absent there and",
            marks=pytest.mark.slow,
        ),
        (
            {"model": "conv", "latent_dims": (2,), "channels": (3, 3)},
            "does not fit the model",
        ),
    ],
    ids=["another size", "another layer", "another family"],
)
def test_other_networks_are_refused(tmp_path, dataset, settings, words):
    path = store(tmp_path, dataset=dataset, **SIZES)
    with pytest.raises(UserError, match=f"--init_from: {path} {words}"):
        started(path, dataset, **settings)


def test_a_folder_without_a_run_and_a_diverged_run_are_refused(tmp_path, dataset):
    with pytest.raises(UserError, match=r"--init_from: .*nothing is not a run's directory"):
        started(tmp_path / "nothing", dataset, **SIZES)
    path = store(tmp_path / "failed", failed_at=[3, -1], dataset=dataset, replicates=2, **SIZES)
    with pytest.raises(UserError, match=r"replicate 0 of .* diverged at step 3; give a run"):
        started(path, dataset, **SIZES)


def test_texts_of_another_vocabulary_are_refused(tmp_path, dataset):
    names = {name: str(tmp_path / f"{name}.txt") for name in ("own", "same", "other")}
    for name, lines in (("own", "abc\ncba"), ("same", "ccc\nbba"), ("other", "abd\ndba")):
        (tmp_path / f"{name}.txt").write_text("\n".join([lines] * 4))
    settings = {"model": "pixelcnn", "width": 4, "layers": 1}
    path = store(tmp_path / "run", dataset=names["own"], **settings)
    with pytest.raises(UserError, match=f"--init_from: {path} was trained on no texts, and same"):
        started(path, names["same"], **settings)
    text_records.write(path, data.load(names["own"]).text)
    started(path, names["same"], **settings)
    with pytest.raises(UserError) as caught:
        started(path, names["other"], **settings)
    assert str(caught.value) == (
        f"--init_from: {path} was trained on texts of another vocabulary, 3 characters there and 3 "
        "here ('c' only there); a token must mean the same character in both."
    )


@pytest.mark.slow
def test_codes_of_another_run_are_refused(tmp_path, dataset):
    sizes = {"channels": (3, 3), "num_codes": 5, "code_dim": 2, "residual_blocks": 0}
    for seed, name in enumerate(("a", "b")):
        store(tmp_path / name, dataset=dataset, model="vqvae", seed=seed, **sizes)
    settings = {"model": "pixelcnn", "width": 4, "layers": 1}
    own, other = (f"codes:{tmp_path / name}" for name in ("a", "b"))
    path = store(tmp_path / "prior", dataset=own, **settings)
    started(path, own, **settings)
    for stored in (path, store(tmp_path / "pixels", dataset=dataset, **settings)):
        with pytest.raises(UserError) as caught:
            started(stored, other, **settings)
        trained_on = own if stored == path else dataset
        assert str(caught.value) == (
            f"--init_from: {stored} was trained on {trained_on}, not on the codes of {other} as "
            "they are now; the codes of different runs do not compare."
        )
