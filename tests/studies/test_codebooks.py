"""The study codebooks without processes: cells, numbers, the table, the file, the figure."""

import json
import math
import xml.dom.minidom

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab.cli import study_flags
from elbo_lab.cli.run_flags import config_of
from elbo_lab.data import Batch, Spec
from elbo_lab.errors import UserError
from elbo_lab.models import conv, vqvae
from elbo_lab.options import values_of
from elbo_lab.reports import codebook_figures
from elbo_lab.studies import codebook_analysis, codebook_results, codebooks, stored_results

SETTINGS = codebooks.STUDY.settings


def test_both_models_have_the_same_convolutions_and_laws():
    cells = study_flags.cells(codebooks.STUDY, SETTINGS, codebooks.choices(SETTINGS, config_of))
    by_model = {cell.config.model: cell.config for cell in cells}
    assert [cell.config.model for cell in cells] == ["vqvae"] * 6 + ["conv"] * 4
    options = [by_model[name].model_options for name in ("vqvae", "conv")]
    shared = [values_of(own) for own in options]
    for name in shared[0].keys() & shared[1].keys():
        assert shared[0][name] == shared[1][name], name
    spec = Spec("image", (28, 28), 2)
    batch = Batch(jnp.zeros((2, 784)))

    def shapes(model):
        params = jax.eval_shape(model.init, jax.random.key(0), batch)
        encoder, decoder = params["encoder"], params["decoder"]
        inner = encoder["trunk"], decoder["trunk"]
        outer = {name: leaf for name, leaf in decoder.items() if name not in ("trunk", "grid")}
        return jax.tree.map(lambda leaf: leaf.shape, (inner, outer))

    assert shapes(vqvae.make(options[0], spec)) == shapes(conv.make(options[1], spec))


def test_labels_that_one_model_sees_are_refused():
    with pytest.raises(UserError, match="--condition=label shows labels to the VAE of the study"):
        codebooks.choices(SETTINGS | {"condition": "label"}, config_of)


def evaluations():
    """Two seeds, three test images, codes at two positions."""
    codes = np.array([[0, 1], [0, 1], [1, 1]], np.int32)
    return {
        seed: {"log_px_code": np.array([-8.0, -9.0, -10.0]) - seed, "codes": codes}
        for seed in (0, 1)
    }


def test_the_numbers_of_a_vqvae_are_those_of_its_seeds():
    train = np.array([[0, 1], [0, 1]])
    row = codebook_analysis.of_vqvae(evaluations(), {0: train, 1: train}, 2)
    # Means 9 and 10 of the two seeds, whose sample standard deviation is 1 / sqrt(2).
    assert row["distortion"] == {"mean": 9.5, "standard_error": pytest.approx(0.5)}
    assert (row["over"], row["positions"]) == ("replicates", 2)
    assert row["fixed_rate"] == pytest.approx(2 * math.log(2))
    # At each position the code of the training images counts three times, the other one once.
    rate = -(5 * math.log(3 / 4) + math.log(1 / 4)) / 3
    assert row["rate"] == {"mean": pytest.approx(rate), "standard_error": pytest.approx(0)}
    assert row["usage_rate"]["mean"] == pytest.approx(2 * math.log(2))  # two of each code
    assert row["bound"]["mean"] == pytest.approx(-9.5 - rate)
    assert row["fixed_bound"]["mean"] == pytest.approx(-9.5 - 2 * math.log(2))
    entropy = -(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(2 / 6))
    assert row["perplexity"] == pytest.approx(math.exp(entropy))


def test_the_numbers_of_a_vae_are_kl_and_reconstruction_over_its_images():
    values = {"kl": np.array([3.0, 5.0]), "reconstruction": np.array([-7.0, -8.0])}
    row = codebook_analysis.of_vae({4: values})
    assert row["over"] == "images"
    assert row["rate"] == {"mean": 4.0, "standard_error": pytest.approx(1)}
    assert row["distortion"] == {"mean": 7.5, "standard_error": pytest.approx(0.5)}
    assert row["bound"] == {"mean": -11.5, "standard_error": pytest.approx(1.5)}


def rows():
    def value(mean):
        return {"mean": mean, "standard_error": 0.25}

    own = {"over": "images", "distortion": value(80.5), "rate": value(20.0), "bound": value(-100.5)}
    quantized = {
        **{"positions": 16, "fixed_rate": 16 * math.log(4), "perplexity": 3.25},
        **{"usage_rate": value(21.5), "fixed_bound": value(-102.75)},
    }
    return [
        {"model": "vqvae", "setting": "4", **own, **quantized},
        {"model": "vqvae", "setting": "32", **own, **quantized, "distortion": value(60.0)},
        {"model": "conv", "setting": "0.3", **own},
    ]


def test_the_table_is_made_of_the_stored_file(tmp_path):
    assert codebook_results.markdown(codebook_results.read(tmp_path)) == "No study is stored yet."
    config = {"dataset": "mnist_small", "likelihood": "bernoulli", "epochs": 10}
    config |= {"batch_size": 50, "replicates": 1}
    sweep = {
        **dict.fromkeys(("elbo_lab", "jax", "date"), "x"),
        "devices": ["cpu"],
        "command": "python -m experiments.study codebooks --workdir=/a",
        "cells": [{"status": "skipped"}, {"runs": [{}], "config": config}],
    }
    content = codebook_results.content(sweep, {"rows": rows()})
    stored_results.write(tmp_path / codebook_results.FILE, content)
    results = codebook_results.read(tmp_path)
    assert results["rows"] == json.loads(json.dumps(rows()))
    text = codebook_results.markdown(results)
    row = "| VQ-VAE, K = 4 | 80.50 +- 0.25 | 22.18 | 21.50 +- 0.25 | 20.00 +- 0.25 | "
    assert row + "-102.75 +- 0.25 | -100.50 +- 0.25 | 3.2 |" in text
    row = "| VAE, beta = 0.3 | 80.50 +- 0.25 | - | - | 20.00 +- 0.25 | - | -100.50 +- 0.25 | - |"
    assert row in text and "M = 16" in text and "one standard error over images" in text
    assert "VQ-VAE, K = 32" in codebook_results.text(results)
    (tmp_path / codebook_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        codebook_results.read(tmp_path)


def test_nothing_is_shown_before_all_cells_are_trained(tmp_path):
    stored_results.write(tmp_path / codebook_analysis.FILE, {"rows": rows()})
    waiting = {"cells": [{"runs": [], "failures": {"0": "not trained yet"}}]}
    codebook_analysis.compute(tmp_path, waiting, load=None)
    assert codebooks.results(tmp_path, waiting) is None
    assert codebooks.drawing(tmp_path, waiting) == ""


def test_the_figure_names_sizes_weights_and_sums():
    svg = codebook_figures.figure(rows())
    root = xml.dom.minidom.parseString(svg)
    texts = ["".join(n.data for n in e.childNodes) for e in root.getElementsByTagName("text")]
    # K of the two sizes, and beta, each at one point.
    assert [texts.count(name) for name in ("4", "32", "0.3")] == [1, 1, 1]
    assert "VQ-VAE: M log K; numbers: K" in texts and "100" in texts
    assert xml.dom.minidom.parseString(codebook_figures.figure(rows()[2:])) is not None
