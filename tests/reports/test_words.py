"""The nouns of results, tables and pages follow the kind of the data."""

import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.data import Spec
from elbo_lab.reports import html_page, results, words

LINES = [{"step": 1, "nll": [9.0], "bound": [-9.0]}]


@pytest.mark.parametrize(("kind", "noun"), [("image", "image"), ("token", "example")])
def test_units_and_standard_errors_of_results(kind, noun):
    config = configs.make(model="pixelcnn", binarization="none")
    values = {"log_px": np.array([-3.0, -5.0])}
    (log_px,) = results.test_results(config, values, Spec(kind, (2, 2), 5))
    assert (log_px.unit, log_px.over) == (f"nats per {noun}", f"{noun}s")
    nll = results.train_result(config, LINES, 0, 0, term="nll", kind=kind)
    bound = results.train_result(configs.make(), LINES, 0, 0, kind=kind)
    assert nll.unit == bound.unit == f"nats per {noun}"
    broken = {"log_px": np.array([-np.inf, 1.0])}
    assert results.not_finite(broken, kind) == f"not finite: log_px on 1 test {noun}s"


def test_the_unit_beside_a_number():
    units = ["nats per image", "nats per example", "bits per dimension", "per dimension"]
    assert [words.short_unit(unit) for unit in units] == [
        *("nats", "nats", "bits per dimension", "per dimension")
    ]


def test_a_page_describes_each_data_set_by_its_kind():
    sizes = {"train_images": 12, "test_images": 7}
    data = {
        "image": {"name": "noise", "kind": "image", "image_shape": [5, 6]},
        "token": {"name": "codes:runs/x", "kind": "token", "image_shape": [2, 2]},
    }
    sweep = {
        **{"cells": [], "grid": {}, "baseline": "a", "best": None, "devices": [], "jobs": None},
        **{"elbo_lab": "1", "jax": "1", "numpy": "1", "date": "today", "command": "sweep"},
    }
    texts = {
        kind: html_page.page(sweep | {"data": [own | sizes | {"binarization": "none"}]})
        for kind, own in data.items()
    }
    assert "noise, 12 training and 7 test images of 5 x 6 pixels, no binarization" in texts["image"]
    assert "codes:runs/x, 12 training and 7 test examples of shape 2 x 2<" in texts["token"]
    assert "<dt>binarization</dt>" in texts["image"]
    assert "binarization" not in texts["token"]


def test_one_example_is_in_the_singular():
    assert words.counted(1, "pair") == "1 pair"
    assert words.counted(1200, "test example") == "1,200 test examples"
