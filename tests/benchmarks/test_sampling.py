"""The benchmark of sampling: its figures. No time is asserted."""

import pytest

from benchmarks import parts, sampling
from elbo_lab.data import Spec

SMALL = {"width": 4, "layers": 1, "first_kernel_size": 3, "output_width": 4}


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_both_ways_of_drawing_are_timed():
    label = "PixelRNN, row LSTM"
    settings = sampling.MODELS[label] | SMALL
    cell = sampling.measure_sampling(label, settings, 3, 2, Spec("image", (4, 3), 2))
    assert (cell["label"], cell["images"]) == (label, 2)
    assert cell["ms_stepwise"] > 0 and cell["ms_recomputed"] > 0
    product = cell["passes"]["median"] * cell["recomputed_over_stepwise"]["median"]
    assert product == pytest.approx(12)  # D, since both are of the same rounds


def test_models_are_measured_in_turn_and_printed(monkeypatch, capsys):
    def measure(label, settings, rounds):
        spread = {"median": 40.0, "quartiles": [30.0, 50.0]}
        return {
            "label": label,
            "images": 64,
            "ms_stepwise": 2.5,
            "ms_recomputed": 100.0,
            "passes": spread,
            "recomputed_over_stepwise": spread,
        }

    monkeypatch.setattr(sampling, "measure_sampling", measure)
    kept = []
    request = parts.Request(["sampling"], [], [], 3, 0.1)
    parts.measure(request, lambda part, value: kept.append((part, len(value))))
    assert kept == [("sampling", number) for number in (1, 2, 3)]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines[2:]] == list(sampling.MODELS)
    assert "40 (30 50)" in lines[2]
