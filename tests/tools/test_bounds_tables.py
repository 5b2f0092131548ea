"""docs/bounds.md is up to date, and the catalogue is complete."""

import inspect

import pytest

from elbo_lab import losses
from elbo_lab.losses import catalogue, estimator_notes
from tools import make_bounds_tables


def test_the_document_is_up_to_date():
    text = make_bounds_tables.DOCUMENT.read_text()
    assert make_bounds_tables.document(text) == text
    for name in (*losses.OBJECTIVES, *losses.ESTIMATORS):
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("name", losses.CATALOGUE)
def test_entries_are_complete(name):
    entry = losses.CATALOGUE[name]
    assert all(entry[:7])
    assert entry.kind in make_bounds_tables.KINDS
    assert getattr(losses, name) is entry.function
    assert set(entry.estimators) <= set(losses.ESTIMATORS)
    takes_estimator = "estimator" in inspect.signature(entry.function).parameters
    assert takes_estimator == bool(entry.estimators)
    documentation = inspect.getdoc(entry.function)
    assert "Returns:" in documentation or "Args, Returns" in documentation
    _, aux = inspect.signature(entry.function).return_annotation.__args__
    assert ("BatchAux" in aux.__name__) == (entry.kind == catalogue.WHOLE_BATCH)


def test_every_estimator_has_a_note():
    assert list(estimator_notes.ESTIMATOR_NOTES) == list(losses.ESTIMATORS)
