"""The measure `information` of stored runs: every family, its files, and what it refuses."""

import json
import xml.dom.minidom

import numpy as np
import pytest

from elbo_lab.errors import UserError
from elbo_lab.evaluation import information
from elbo_lab.runs import evaluating, informing, loading
from elbo_lab.runs.evaluating import Settings
from tests.runs.test_loading import store

TEST = 21
SPLITS = {"train": 12, "test": TEST}
FAMILIES = {
    "mlp": {"posterior": "full", "prior": "vamp", "latent_dims": (3,), "hidden_dims": (4,)},
    "layers": {"latent_dims": (3, 2), "hidden_dims": (4,), "upper_hidden_dims": (4,)},
    "sbn": {"model": "sbn", "latent_dims": (4, 3)},
    "conv": {"model": "conv", "latent_dims": (2,), "channels": (3, 3)},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("informing") / "noise.npz"
    rng = np.random.default_rng(0)
    images = {f"x_{s}": rng.integers(0, 256, (n, 5, 6), np.uint8) for s, n in SPLITS.items()}
    np.savez(path, **images, **{f"y_{s}": np.arange(n) % 3 for s, n in SPLITS.items()})
    return str(path)


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_values_rows_and_figure(family, dataset, tmp_path):
    store(tmp_path / "run", dataset=dataset, k=2, **FAMILIES[family])
    trained = loading.load(tmp_path / "run")
    table = evaluating.evaluate(trained, Settings(("information",), information_examples=17))
    (folder,) = (tmp_path / "run" / "evaluations").iterdir()
    with np.load(folder / "evaluation.npz") as file:
        values = {name.removesuffix("_0"): file[name] for name in file}
    assert {array.shape[0] for array in values.values()} == {TEST}
    assert np.all(values["information"] <= np.log(17) + 1e-5)
    kl = values["information_rate"] - values["information"]
    np.testing.assert_allclose(values["aggregate_kl"], kl, rtol=1e-4, atol=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    curve = summary["information"]
    assert curve["examples"] == [4, 16, 17]
    assert curve["lower"][-1] == pytest.approx(values["information"].mean(), rel=1e-5)
    rows = {row["symbol"]: row for row in summary["results"]}
    assert (rows["N"]["value"], rows["log N"]["value"]) == (17, pytest.approx(np.log(17)))
    directions = {symbol: rows[symbol]["bound"] for symbol in ("I_NCE", "I_J", "I_LOO", "R")}
    assert list(directions.values()) == [
        *("lower bound in expectation", "estimate", "upper bound in expectation"),
        "upper bound in expectation",
    ]
    assert rows["I_BA"]["value"] == pytest.approx(values["model_information"].mean(), rel=1e-5)
    for text in ("mutual information, InfoNCE", "log N", "KL(q(z) || p(z))", str(folder)):
        assert text in table
    svg = (folder / "information.svg").read_text()
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg" and "log N" in svg
    # It is not computed twice, and older evaluations keep the names of their folders.
    again = evaluating.evaluate(trained, Settings(("information",), information_examples=17))
    assert again == table and len(list(folder.parent.iterdir())) == 1


def test_settings_of_other_measures_are_stored_as_before():
    assert "information_examples" not in Settings(("quantities",), k=3).stored()
    assert Settings(("information",), information_examples=5).stored()["information_examples"] == 5


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_what_cannot_be_paired_is_refused(dataset, tmp_path):
    small = {"dataset": dataset, "latent_dims": (2,), "hidden_dims": (4,)}
    store(tmp_path / "run", k=2, **small)
    trained = loading.load(tmp_path / "run")
    for size in (1, 22):
        with pytest.raises(UserError, match=rf"must lie in 2\.\.21, the test examples; got {size}"):
            evaluating.evaluate(trained, Settings(("information",), information_examples=size))
    with pytest.raises(UserError, match="--information_examples=5 goes with --measures=informat"):
        evaluating.evaluate(trained, Settings(("quantities",), information_examples=5))
    lone = trained.dataset._replace(x_test=trained.dataset.x_test[:1], name="lone")
    with pytest.raises(UserError, match="pairs test examples, at least 2; got 1 of lone"):
        informing.check(trained, Settings(("information",)), lone)
    store(tmp_path / "labels", k=2, condition="label", **small)
    with pytest.raises(ValueError, match="with condition=label has an aggregate posterior"):
        evaluating.evaluate(loading.load(tmp_path / "labels"), Settings(("information",)))
    store(tmp_path / "code", objective="autoencoder", **small)
    with pytest.raises(ValueError, match="a run of a latent-variable model"):
        evaluating.evaluate(loading.load(tmp_path / "code"), Settings(("information",)))


def test_the_curve_has_means_and_standard_errors():
    rng = np.random.default_rng(1)
    values = {name: rng.normal(size=9) for name in ("information_rate", "model_information")}
    values["information_by_size"] = rng.normal(size=(9, 2, 3))
    curve = informing.summary(values, 9)
    assert curve["examples"] == list(information.sizes(9)) == [4, 9]
    for index, name in enumerate(("lower", "corrected", "upper")):
        own = values["information_by_size"][:, :, index]
        np.testing.assert_allclose(curve[name], own.mean(axis=0))
        np.testing.assert_allclose(curve[f"{name}_error"], own.std(axis=0, ddof=1) / 3)
    assert curve["rate"] == pytest.approx(values["information_rate"].mean())
    assert curve["model"] == pytest.approx(values["model_information"].mean())
