"""Evaluations of the first test examples of stored runs."""

import json

import jax
import numpy as np
import pytest

from elbo_lab.errors import UserError
from elbo_lab.runs import derived, evaluating, loading
from elbo_lab.runs.instruments import Settings
from tests.runs.test_loading import SIZES, store

pytestmark = pytest.mark.usefixtures("fast_compilation")

# 50 draws of 20 examples are held at once: 30 examples are two batches, as are 23 of them.
TEST, FIRST, DRAWS = 30, 23, 50
SMALL = {"latent_dims": (2,), "hidden_dims": (4,), "k": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("evaluating") / "noise.npz"
    rng = np.random.default_rng(0)
    splits = {"train": 12, "test": TEST}
    images = {f"x_{s}": rng.integers(0, 256, (n, 5, 6), np.uint8) for s, n in splits.items()}
    np.savez(path, **images, **{f"y_{s}": np.arange(n) % 3 for s, n in splits.items()})
    jax.config.update("jax_disable_most_optimizations", True)
    return str(path)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory) -> loading.Trained:
    """A VAE that has initial parameters."""
    return loading.load(store(tmp_path_factory.mktemp("vae") / "run", dataset=dataset, **SMALL))


def test_settings_that_came_later_leave_the_names_of_older_evaluations():
    names = {"measures", "k", "eval_k", "seed", "dataset"}
    assert Settings(eval_k=5000).stored().keys() == names
    assert Settings(test_examples=5).stored().keys() == names | {"test_examples"}


def test_the_first_examples_have_the_values_of_the_whole_evaluation(trained):
    done = []
    whole = evaluating.kept(trained, Settings(eval_k=DRAWS))
    settings = Settings(eval_k=DRAWS, test_examples=FIRST)
    table = evaluating.evaluate(trained, settings, on_batch=done.append)
    assert done == [20, FIRST]
    assert f"noise, the first {FIRST} of {TEST} test examples" in table
    part = evaluating.kept(trained, settings, on_batch=done.append)
    assert len(done) == 2, "it is not computed twice"
    assert part.folder != whole.folder and part.values.keys() == whole.values.keys()
    for name, values in whole.values.items():
        assert len(values) == TEST
        np.testing.assert_array_equal(part.values[name], values[:FIRST])
    row = next(row for row in part.rows if row.symbol == f"L_{DRAWS}")
    expected = whole.values["log_likelihood"][:FIRST].astype(np.float64)
    assert row.value == pytest.approx(expected.mean()) and row.count == FIRST
    assert row.standard_error == pytest.approx(expected.std(ddof=1) / np.sqrt(FIRST))
    summary = json.loads((part.folder / "summary.json").read_text())
    assert summary["settings"]["test_examples"] == FIRST
    for wanted, kept in ((settings, part), (Settings(eval_k=DRAWS), whole)):
        stored = evaluating.stored_values(trained.path, wanted, TEST)
        np.testing.assert_array_equal(stored["log_likelihood"], kept.values["log_likelihood"])
    other = Settings(eval_k=DRAWS, test_examples=7)
    assert evaluating.stored_values(trained.path, other, TEST) is None


def test_the_first_examples_of_other_data(trained):
    other = trained.dataset._replace(name="other", x_test=255 - trained.dataset.x_test)
    settings = Settings(dataset="other.npz", test_examples=1)
    table = evaluating.evaluate(trained, settings, other)
    assert f"other, the first 1 of {TEST} test examples" in table
    one = evaluating.kept(trained, settings, other)
    whole = evaluating.kept(trained, Settings(dataset="other.npz"), other)
    np.testing.assert_array_equal(one.values["elbo"], whole.values["elbo"][:1])
    assert {row.standard_error for row in one.rows} == {None}


def test_a_number_that_the_data_do_not_have_is_refused(trained):
    for number in (0, TEST + 1):
        with pytest.raises(UserError) as refused:
            evaluating.kept(trained, Settings(test_examples=number))
        assert str(refused.value) == (
            f"--test_examples must lie in 1..{TEST}, the test examples of noise; got {number}."
        )
    few = {"measures": ("information",), "test_examples": 5}
    with pytest.raises(UserError, match=r"--information_examples must lie in 2\.\.5, .* got 6"):
        evaluating.kept(trained, Settings(information_examples=6, **few))


@pytest.mark.slow
def test_codes_keep_the_bound_of_their_images(dataset, tmp_path):
    store(tmp_path / "vqvae", model="vqvae", dataset=dataset, **SIZES)
    sizes = {"model": "pixelcnn", "width": 2, "layers": 1, "output_width": 2}
    codes = f"codes:{tmp_path / 'vqvae'}"
    prior = derived.load_run(store(tmp_path / "prior", dataset=codes, **sizes))
    whole = evaluating.kept(prior, Settings())
    part = evaluating.kept(prior, Settings(test_examples=FIRST))
    assert set(part.values) == {"log_px", "pair_bound"}
    for name, values in part.values.items():
        np.testing.assert_array_equal(values, whole.values[name][:FIRST])


@pytest.mark.slow
def test_measures_of_a_whole_split_see_the_first_examples_alone(trained, dataset, tmp_path):
    kept = evaluating.kept(trained, Settings(("information",), test_examples=FIRST))
    assert {len(array) for array in kept.values.values()} == {FIRST}
    size = next(row for row in kept.rows if row.symbol == "N")
    assert size.value == FIRST
    run = store(tmp_path / "labels", dataset=dataset, condition="label", **SMALL)
    labelled, names = loading.load(run), ("quantities", "classification")
    part, whole = (
        evaluating.kept(labelled, Settings(names, test_examples=number)) for number in (FIRST, None)
    )
    for name, values in part.values.items():
        np.testing.assert_allclose(values, whole.values[name][:FIRST], rtol=1e-12)
    for classifier in part.summaries["classification"]["classifiers"].values():
        assert np.sum(classifier["confusion"]) == FIRST
