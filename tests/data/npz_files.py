"""Users' .npz files for tests, and the error message of a data set that is refused."""

import numpy as np
import pytest

from elbo_lab.data import load
from elbo_lab.errors import UserError

GREY = np.array([[[0, 1], [128, 255]], [[3, 4], [5, 6]], [[7, 8], [9, 10]]], np.uint8)  # [3, 2, 2]


def save(folder, **arrays):
    """Writes a file of 3 training and 2 test images; returns its path.

    Arguments add or replace arrays; None omits one.
    """
    arrays = {"x_train": GREY, "x_test": GREY[:2]} | arrays
    path = folder / "own.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def refusal(name, *folders) -> str:
    """The error message with which `load` refuses a data set; checks that it is one line."""
    with pytest.raises(UserError) as caught:
        load(str(name), *folders)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message
