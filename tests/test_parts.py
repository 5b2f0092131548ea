"""The division of a batch into parts."""

import pytest

from elbo_lab.parts import number_of_parts


@pytest.mark.parametrize(
    ("size", "most", "number"),
    [(128, 8, 16), (100, 8, 20), (8, 8, 1), (7, 8, 1), (127, 8, 1), (3, 1, 3), (128, None, 1)],
)
def test_batches_are_split_into_few_equal_parts(size, most, number):
    assert number_of_parts(size, most) == number
