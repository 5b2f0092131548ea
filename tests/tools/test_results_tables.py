"""The tables of documents are up to date; rows of Table 1 against hand-made ones."""

import math

import pytest

from elbo_lab.errors import DamageWarning
from elbo_lab.reports import documents
from elbo_lab.studies import published, table1_results
from tools import make_results_tables


def made_row(**changes):
    row = {
        "data": "mnist",
        "layers": 1,
        "model": "iwae",
        "k": 5,
        "protocol": "burda2015_code",
        "budget": 0.1,
        "nll": [86.0, 87.0, 88.0],
        "nll_standard_error_over_images": 0.27,
        "active_units": [[20], [22], [24]],
        "steps": 977_440,
        "config": configuration(),
        "device": "cpu, 2 cores",
    }
    return row | changes


def configuration(**changes):
    config = {"batch_size": 20, "eval_k": 5000, "au_images": 500, "seed": 0, "replicates": 1}
    return config | changes


def test_the_documents_are_up_to_date():
    for path in make_results_tables.PAGES:
        assert make_results_tables.updated(path) == path.read_text()


@pytest.mark.parametrize("study", make_results_tables.FIGURES)
def test_figures_show_the_stored_results(study):
    text = (make_results_tables.SYSTEMS / f"{study}.svg").read_text()
    assert text.splitlines()[-1] == make_results_tables.source(study)


def test_a_cell_shows_mean_error_and_distance_to_the_paper():
    texts = table1_results.texts_of(made_row())
    cells = dict(zip(table1_results.HEAD[:7], texts[:7], strict=True))
    # The sample standard deviation of 86, 87, 88 is 1, over the root of three replicates.
    assert cells["NLL"] == f"87.00 +- {1 / math.sqrt(3):.2f} (3 seeds)"
    assert texts[7:] == ("22", "85.54", "22", "+1.46", "no")
    at_the_paper = made_row(nll=[published.TABLE1["mnist", 1, "iwae", 5].nll])
    assert table1_results.texts_of(at_the_paper)[-2:] == ("+0.00", "yes")
    assert cells["steps x B"] == "977,440 x 20 (0.1)"


def test_bounds_of_another_k_are_not_compared_with_the_paper():
    row = made_row(config=configuration(eval_k=100, au_images=None))
    assert table1_results.texts_of(row)[8:] == ("", "", "", "")
    notes = table1_results.notes([row])
    assert "by L_100," in notes[0] and "training images" not in notes[2]
    assert "by L_100 or L_5000," in table1_results.notes([row, made_row()])[0]
    assert (
        "(burda2015_code: the first 500 training images)" in table1_results.notes([made_row()])[2]
    )


def test_every_cell_has_another_name():
    def name(**changes):
        return table1_results.slug(made_row(protocol="fast", **changes))

    changes = [{}, {"data": "a/x.npz"}, {"data": "b/x.npz"}, {"layers": 2}]
    changes += [{"config": configuration(eval_k=100)}]
    changes += [{"config": configuration(init_from="runs/iwae-k5")}]
    assert len({name(**change) for change in changes}) == len(changes)
    assert name() == "mnist-1-iwae-k5-fast-0.1-s0-r1"
    assert "/" not in name(data="emnist/letters") + name(data="a/x.npz")


def test_a_row_that_began_at_another_run_says_so():
    row = made_row(protocol="fast", config=configuration(init_from="runs/iwae-k5"))
    assert table1_results.slug(row) == "mnist-1-iwae-k5-fast-0.1-s0-r1-from-iwae-k5"
    assert table1_results.texts_of(row)[4] == "fast from iwae-k5"
    assert any(note.startswith("from RUN:") for note in table1_results.notes([row, made_row()]))
    assert not any(note.startswith("from RUN:") for note in table1_results.notes([made_row()]))


def test_one_replicate_has_the_error_over_images_and_unknown_data_no_published_number():
    cells = table1_results.texts_of(made_row(nll=[86.0], active_units=[[20, 5]], data="mine"))
    assert cells[6:] == ("86.00 +- 0.27", "20+5", "", "", "", "")


def test_numbers_that_were_not_read_in_the_paper_are_marked():
    row = made_row(data="omniglot", k=50)
    assert table1_results.texts_of(row)[8:10] == ("104.67?", "41?")
    assert any(note.startswith("?:") for note in table1_results.notes([row]))
    assert not any(note.startswith("?:") for note in table1_results.notes([made_row()]))


def test_the_published_table_is_complete_and_iwae_beats_the_vae():
    assert len(published.TABLE1) == 2 * 2 * 2 * 3
    for (name, layers, model, k), cell in published.TABLE1.items():
        assert cell.active_units.count("+") == layers - 1
        if model == "iwae" and k > 1:
            assert cell.nll < published.TABLE1[name, layers, "vae", k].nll


def test_a_damaged_result_is_skipped_and_written_again(tmp_path):
    path = tmp_path / f"table1-{table1_results.slug(made_row())}.json"
    table1_results.write(tmp_path, made_row())
    written = path.read_text()
    for damaged in ("{", "[]", '{"nll": 3}', "[" * 900 + "]" * 900):
        path.write_text(damaged)
        with pytest.warns(DamageWarning, match="its cell is left out"):
            assert table1_results.read(tmp_path) == []
        table1_results.write(tmp_path, made_row())
        assert path.read_text() == written
    before = path.stat().st_mtime_ns
    table1_results.write(tmp_path, made_row(date="later"))
    assert path.stat().st_mtime_ns == before


def test_a_document_without_the_markers_of_a_table_is_refused():
    with pytest.raises(ValueError, match="<!-- missing -->"):
        documents.replaced("nothing", "missing", "table")
