"""Studies of published comparisons without processes: cells, differences, stored rows."""

import dataclasses
import json
import xml.dom.minidom

import numpy as np
import pytest
from scipy import stats

from elbo_lab import configs, files
from elbo_lab.cli import study_flags
from elbo_lab.cli.protocols import PROTOCOLS
from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.studies import comparison_results, published
from elbo_lab.studies.registry import STUDIES
from elbo_lab.sweeps import grid, sweep_folder, sweep_results
from tests.sweeps import made_sweeps

SETTINGS = {"protocol": "fast", "budget": "0.03", "estimator": "reparam"}
MODELS = {
    ("VAE", "5"): {"objective": "elbo"},
    ("IWAE", "5"): {"objective": "iwae"},
    ("VR-max", "5"): {"objective": "renyi", "alpha": -np.inf},
}


def cells_of(name, **given):
    study = STUDIES[name]
    settings = study.settings | given
    return study_flags.cells(study, settings, study.choices(settings, config_of))


def rows_of(sweep, settings=SETTINGS):
    return comparison_results.rows_of_sweep(sweep, settings, SETTINGS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of three cells of li_turner2016 on made values: its folder, its content as of the
    paper's data and model, and the log-likelihoods of each cell's images.
    """
    folder = tmp_path_factory.mktemp("comparison")
    cells = [
        grid.Cell({"model": model, "k": k}, made_sweeps.config({"k": k}, **settings))
        for (model, k), settings in MODELS.items()
    ]
    values = made_sweeps.fill(folder, cells)
    store = sweep_folder.read(folder, {"blobs.npz": made_sweeps.DIGEST})
    sweep = sweep_results.collect(cells, 0, store, {}, "python x li_turner2016 --jobs=2 --seed=0")
    sweep = files.jsonable(sweep)
    for cell in sweep["cells"]:
        cell["config"] |= {"dataset": "mnist", "latent_dims": [50]}
    return folder, sweep, [values[cell.name, 0]["log_likelihood"].astype(float) for cell in cells]


@pytest.mark.parametrize("name", published.COMPARISONS)
def test_published_numbers_belong_to_cells_of_the_study(name):
    paper, cells = published.COMPARISONS[name], cells_of(name)
    keys = [tuple(cell.values.values()) for cell in cells]
    assert {*paper.log_px, *paper.better, *paper.bounds} <= set(keys)
    assert not paper.log_px or next(iter(paper.log_px)) == keys[0]
    assert paper.difference(keys[0]) is None
    for key, bound in paper.bounds.items():
        # The paper rounds all three to a hundredth.
        assert bound.value - paper.log_px[key] == pytest.approx(bound.gap, abs=0.011)


def test_published_differences_are_to_the_first_cell():
    difference = published.COMPARISONS["rainforth2018"].difference
    assert difference(("PIWAE(8, 8)",)) == pytest.approx(0.06)
    assert difference(("VAE",)) == pytest.approx(-1.69)
    difference = published.COMPARISONS["li_turner2016"].difference
    assert difference(("IWAE", "50")) == pytest.approx(1.67)
    assert difference(("VR(0.5)", "50")) is None  # the paper has no such number
    assert published.COMPARISONS["tucker2018"].difference(("dreg",)) is None


def test_every_cell_of_rainforth_takes_64_draws():
    configurations = [cell.config for cell in cells_of("rainforth2018")]
    assert [config.k * config.m for config in configurations] == [64] * 5
    assert {config.estimator for config in configurations} == {"reparam"}


def test_the_protocol_of_the_paper_is_one_flag_away():
    def cell(name, values, protocol):
        cells = cells_of(name, protocol=protocol, budget="1")
        return next(c.config for c in cells if tuple(c.values.values()) == values)

    rainforth = cell("rainforth2018", ("IWAE",), "rainforth2018")
    assert rainforth == configs.resolved(PROTOCOLS["rainforth2018"])
    vae = cell("rainforth2018", ("VAE",), "rainforth2018")
    assert (vae.objective, vae.k) == ("elbo", 64)  # without the warm-up of `fast`
    assert cell("tucker2018", ("dreg",), "tucker2018") == PROTOCOLS["tucker2018"]
    expected = dataclasses.replace(PROTOCOLS["burda2015_paper"], estimator="reparam")
    assert cell("li_turner2016", ("IWAE", "5"), "burda2015_paper") == expected


def test_draws_and_estimators_that_cells_set_are_refused_as_flags():
    with pytest.raises(UserError, match="^--k differs between the cells of the study rainforth"):
        cells_of("rainforth2018", k="8")
    with pytest.raises(UserError, match="^--estimator differs between the cells of the study tuck"):
        cells_of("tucker2018", estimator="stl")


@pytest.mark.parametrize(
    "low, high, sign, expected",
    [
        (0.1, 0.3, 1.67, "agrees"),
        (-0.3, -0.1, -0.45, "agrees"),
        (0.1, 0.3, -0.45, "differs"),
        (-0.3, -0.1, 1.0, "differs"),
        (-0.1, 0.3, 1.0, "open"),
        (0.0, 0.0, 1.0, "open"),
        (0.1, 0.3, 0.0, "-"),
    ],
)
def test_a_sign_counts_beyond_the_interval(low, high, sign, expected):
    difference = {"mean": (low + high) / 2, "low": low, "high": high}
    assert comparison_results.order(difference, sign) == expected
    assert comparison_results.order(None, sign) == "-"


def test_rows_have_our_paired_difference_beside_the_published_one(made):
    _, sweep, values = made
    baseline, iwae, vr_max = rows_of(sweep)
    assert "difference" not in baseline and baseline["position"] == 0
    for row, images in ((iwae, values[1]), (vr_max, values[2])):
        pairs = images - values[0]
        error = pairs.std(ddof=1) / len(pairs) ** 0.5
        low, high = stats.t.interval(0.95, len(pairs) - 1, pairs.mean(), error)
        found = [row["difference"][name] for name in ("mean", "low", "high")]
        assert found == pytest.approx([pairs.mean(), low, high])
    assert iwae["log_px"] == pytest.approx(values[1].mean())
    assert iwae["standard_error"] == pytest.approx(values[1].std(ddof=1) / len(values[1]) ** 0.5)
    assert iwae["command"] == "python x li_turner2016 --seed=0"
    paper = published.COMPARISONS["li_turner2016"]
    texts = comparison_results.texts_of(paper, iwae)
    # The made levels rise by one nat from cell to cell.
    assert texts[:3] == ("IWAE", "5", "fast (0.03)")
    assert texts[5:] == ("-85.41", "+1.06", "agrees")
    assert comparison_results.texts_of(paper, baseline)[4:] == ("the baseline", "-86.47", "-", "-")


def test_a_claim_without_a_number_has_a_sign(made):
    _, sweep, _ = made
    row = rows_of(sweep)[1] | {"values": ["dreg"]}
    row["config"] = row["config"] | {"k": 64}
    paper = published.COMPARISONS["tucker2018"]
    assert comparison_results.texts_of(paper, row)[4:] == ("-", "> 0", "agrees")
    assert comparison_results.texts_of(paper, row | {"values": ["stl"]})[4:] == ("-", "-", "-")
    # The claim is about 64 draws.
    row["config"] = row["config"] | {"k": 5}
    assert comparison_results.texts_of(paper, row)[4:] == ("-", "> 0", "-")
    assert comparison_results.notes(paper, [row])[-1].endswith("eval_k 5000, k 64.")


def test_published_bounds_have_columns_of_their_own(made):
    _, sweep, _ = made
    row = rows_of(sweep)[1] | {"values": ["MIWAE(8, 8)"]}
    paper = published.COMPARISONS["rainforth2018"]
    assert comparison_results.head(paper, [row])[-2:] == ("published L_64", "gap")
    shown = comparison_results.texts_of(paper, row)[4:]
    assert shown == ("-84.97", "-0.45", "differs", "-85.69", "-0.72")


def test_cells_of_other_data_or_other_bounds_have_no_order(made):
    _, sweep, _ = made
    row = rows_of(sweep)[1]
    paper = published.COMPARISONS["li_turner2016"]
    for change in ({"dataset": "fashion_mnist"}, {"eval_k": 100}, {"latent_dims": [100, 50]}):
        other = row | {"config": row["config"] | change}
        assert comparison_results.texts_of(paper, other)[-1] == "-"
        assert "settings other than the papers'" in comparison_results.notes(paper, [other])[-1]
    assert "settings other" not in comparison_results.notes(paper, [row])[-1]


def test_settings_that_are_not_the_studys_stand_beside_the_protocol(made):
    _, sweep, _ = made
    changed = SETTINGS | {"estimator": "dreg", "adam_eps": "1e-4"}
    row = rows_of(sweep, changed)[0]
    paper = published.COMPARISONS["li_turner2016"]
    expected = "fast (0.03), estimator dreg, adam_eps 1e-4"
    assert comparison_results.texts_of(paper, row)[2] == expected


def test_the_study_keeps_its_cells_and_shows_all_that_are_kept(made, tmp_path):
    path, sweep, _ = made
    name, folder = "li_turner2016", tmp_path / "results"
    study = STUDIES[name].kept_in(STUDIES[name], folder)
    settings = study.settings | {"estimator": "dreg"}
    text = study.table(path, sweep, settings)
    kept = sorted(folder.glob("*.json"))
    assert [file.name.rpartition("-")[0] for file in kept] == [
        "li_turner2016-IWAE-5-fast-0.03",
        "li_turner2016-VAE-5-fast-0.03",
        "li_turner2016-VR-max-5-fast-0.03",
    ]
    assert [line.split()[0] for line in text.splitlines()[:4]] == ["model", "VAE", "IWAE", "VR-max"]
    read = comparison_results.read(folder, name)
    assert comparison_results.text(name, read) == text
    assert comparison_results.markdown(name, read).startswith("| model | k | protocol | log p(x) |")
    written = [file.stat().st_mtime_ns for file in kept]
    study.table(path, sweep | {"date": "later"}, settings)  # the same numbers
    assert [file.stat().st_mtime_ns for file in kept] == written
    # A cell with a replicate that is not trained yet is not kept.
    waiting = json.loads(json.dumps(sweep))
    waiting["cells"][1]["failures"] = {"1": sweep_results.WAITING}
    assert [row["values"][0] for row in rows_of(waiting)] == ["VAE", "VR-max"]
    # Nor is one whose log-likelihood is not finite: JSON has null for it.
    waiting["cells"][1]["failures"] = {}
    waiting["cells"][1]["results"]["log_likelihood"]["mean"] = None
    assert [row["values"][0] for row in rows_of(waiting)] == ["VAE", "VR-max"]
    kept[0].write_text("{")
    with pytest.warns(DamageWarning, match="its cell is left out"):
        assert len(comparison_results.read(folder, name)) == 2
    for make in (comparison_results.text, comparison_results.markdown):
        assert make(name, []) == "No cell is complete yet."


def test_the_figure_has_published_differences_as_open_markers(made):
    _, sweep, _ = made
    figure = STUDIES["li_turner2016"].figure
    svg = figure(sweep["cells"])
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
    others = json.loads(json.dumps(sweep["cells"]))
    for cell in others:
        cell["config"]["dataset"] = "fashion_mnist"
    # Each compared cell loses one marker, the published one.
    assert svg.count("<use") - figure(others).count("<use") == 2
    assert figure(sweep["cells"][:1]) == ""
