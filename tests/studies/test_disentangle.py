"""The study disentangle: its cells, and its table and figure of hand-made results."""

import json
import xml.dom.minidom
from types import SimpleNamespace

import pytest

from elbo_lab.cli import study_flags
from elbo_lab.errors import UserError
from elbo_lab.reports import disentangle_figures
from elbo_lab.runs import disentangling
from elbo_lab.studies import disentangle, disentangle_results, stored_results

SETTINGS = disentangle.STUDY.settings


def row(objective, weight, error):
    values = {"reconstruction": -50.25, "kl": 12.5, "active": 7.5}
    values |= dict.fromkeys(disentangle_results.SCORES, 0.125)
    return {
        **{"objective": objective, "weight": weight, "replicates": 2},
        **{name: {"mean": v, "standard_error": error} for name, v in values.items()},
    }


RESULTS = {
    "command": "python -m experiments.study disentangle",
    "devices": ["cpu, 1 core"],
    "data": "factors",
    "epochs": 60,
    "latent_dim": 10,
    "rows": [row("beta_vae", "1", 0.5), row("beta_vae", "4", None), row("beta_tcvae", "4", 0.25)],
}


def test_the_first_cell_is_the_vae():
    cells = study_flags.cells(disentangle.STUDY, SETTINGS, disentangle.choices(SETTINGS, None))
    assert (cells[0].config.objective, cells[0].config.objective_options.beta) == ("beta_vae", 1)
    assert not any(cell.reason for cell in cells)


def test_data_without_factors_are_refused():
    with pytest.raises(UserError, match="--dataset must be factors or factors64 .* 'mnist_small'"):
        disentangle.choices(SETTINGS | {"dataset": "mnist_small"}, None)


def test_the_measure_needs_known_factors_and_several_latents():
    blobs = SimpleNamespace(factors=None, name="blobs")
    with pytest.raises(UserError, match="needs data whose factors are known, .* got blobs"):
        disentangling.check(SimpleNamespace(dataset=blobs), None, blobs)
    known = SimpleNamespace(factors=SimpleNamespace(test=[0]), name="known")
    config = SimpleNamespace(model="pixelcnn")
    run = SimpleNamespace(
        dataset=known, config=config, path="runs/x", method=SimpleNamespace(encode=None)
    )
    with pytest.raises(UserError, match="two real numbers; runs/x is a run of pixelcnn"):
        disentangling.check(run, None, known)


def test_the_table_and_the_file(tmp_path):
    assert disentangle_results.read(tmp_path) is None
    stored_results.write(tmp_path / disentangle_results.FILE, RESULTS)
    results = disentangle_results.read(tmp_path)
    assert results["rows"] == json.loads(json.dumps(RESULTS["rows"]))
    text = disentangle_results.text(results)
    assert "-50.25 +- 0.50" in text and "0.125 +- 0.500" in text and "2 replicates" in text
    assert "| beta_vae | 4 | -50.25 | 12.50 | 7.500 | 0.125 |" in disentangle_results.markdown(
        results
    )


def test_the_figure_names_the_weights():
    svg = disentangle_figures.figure(RESULTS["rows"])
    root = xml.dom.minidom.parseString(svg)
    texts = ["".join(n.data for n in e.childNodes) for e in root.getElementsByTagName("text")]
    assert texts.count("4") >= 6 and {"MIG", "beta_vae", "beta_tcvae"} <= set(texts)
