"""Levels of codes in a data set: what is x, what is context, and that both travel together."""

import numpy as np
import pytest

from elbo_lab.data import (
    Codes,
    Dataset,
    Spec,
    contexts,
    decoded,
    digest,
    first_of_test,
    hold_out,
    load,
    spec_of,
    split_levels,
)

SPECS = (Spec("token", (1, 1), 9), Spec("token", (1, 2), 9), Spec("token", (2, 4), 9))
TRAIN, TEST = (
    np.random.default_rng(i).integers(9, size=(n, 11), dtype=np.int32)
    for i, n in enumerate((20, 6))
)


def dataset_of(level: int, train: np.ndarray = TRAIN) -> Dataset:
    codes = Codes(SPECS, level, train, TEST, np.zeros(6), None, lambda codes: codes[:, :, None])
    return Dataset(
        "codes",
        codes.x(train),
        codes.x(TEST),
        np.arange(20, dtype=np.int32) % 3,
        None,
        SPECS[level].shape,
        kind="token",
        levels=9,
        decode=codes.decode if codes.is_lowest else None,
        log_px_z=np.arange(6.0),
        codes=codes,
    )


@pytest.mark.parametrize(("level", "start", "end"), [(0, 0, 1), (1, 1, 3), (2, 3, 11)])
def test_a_level_is_some_columns_and_its_context_those_before(level, start, end):
    dataset = dataset_of(level)
    np.testing.assert_array_equal(dataset.x_train, TRAIN[:, start:end])
    np.testing.assert_array_equal(split_levels(TEST, SPECS)[level], TEST[:, start:end])
    for context, codes in zip(contexts(dataset), (TRAIN, TEST), strict=True):
        if level == 0:
            assert context is None
        else:
            np.testing.assert_array_equal(context, codes[:, :start])
    assert spec_of(dataset, "none") == SPECS[level]._replace(classes=3, context=SPECS[:level])


def test_images_are_decoded_from_all_levels():
    dataset = dataset_of(2)
    images = decoded(dataset, dataset.x_test, contexts(dataset)[1])
    np.testing.assert_array_equal(images, TEST[:, :, None])
    np.testing.assert_array_equal(decoded(dataset_of(1), TEST[:, 1:3]), TEST[:, None, 1:3])


def test_the_context_follows_its_examples():
    held = hold_out(dataset_of(1), 4)
    np.testing.assert_array_equal(held.codes.train, TRAIN[:16])
    np.testing.assert_array_equal(contexts(held)[0], TRAIN[:16, :1])
    alone = load(
        "training:codes", resolve=lambda name, *_: dataset_of(1) if name == "codes" else None
    )
    assert alone.codes.test.shape == (0, 11) and alone.codes.log_pz_above is None
    parts = hold_out(alone, 5)
    assert len(parts.x_train) == 15 and len(parts.x_test) == 5
    for x, codes in [(parts.x_train, parts.codes.train), (parts.x_test, parts.codes.test)]:
        np.testing.assert_array_equal(x, codes[:, 1:3])
    together = np.concatenate([parts.codes.train, parts.codes.test])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(TRAIN, axis=0))


def test_the_first_test_examples_keep_what_belongs_to_them():
    first = first_of_test(dataset_of(1), 4)
    np.testing.assert_array_equal(first.x_test, TEST[:4, 1:3])
    np.testing.assert_array_equal(contexts(first)[1], TEST[:4, :1])
    np.testing.assert_array_equal(first.log_px_z, np.arange(4.0))
    assert first.codes.log_pz_above.shape == (4,) and first.y_test is None
    np.testing.assert_array_equal(first.codes.train, TRAIN)


def test_the_digest_is_of_the_context_too_and_not_of_the_levels_below():
    changes = {level: TRAIN.copy() for level in range(3)}
    for level, changed in changes.items():
        column = split_levels(changed, SPECS)[level]
        column[0, 0] = (column[0, 0] + 1) % 9
    own = digest(dataset_of(1))
    assert [digest(dataset_of(1, changes[level])) == own for level in range(3)] == [
        False,
        False,
        True,
    ]
