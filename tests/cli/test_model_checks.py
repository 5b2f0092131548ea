"""Refusals of settings of models: odd sizes, colours, and the library's messages with flags."""

import numpy as np
import pytest

from elbo_lab.cli import flag_values, validation
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from tests.cli.test_validation import BINARY, GREY, LAWS, data_refusal, refusal

ODD = {
    "kernel_size": "pixelcnn",
    "first_kernel_size": "pixelrnn",
    "receptive_field": "pixelvae",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("value", [1, 4, 201])
def test_sizes_around_a_centre_are_odd(name, value):
    message = refusal(model=ODD[name], **{name: value})
    most = 199 if name == "receptive_field" else 99
    assert message == f"--{name} must be an odd number in 3..{most}; got {value}."


def test_names_of_settings_in_the_librarys_messages_become_flags():
    for message, expected in (
        ("width must be at least 3; got 1.", "--width must be at least 3; got 1."),
        (
            "model=pixelcnn needs levels, not levels=None.",
            "--model=pixelcnn needs levels, not levels=None.",
        ),
        ("use --condition=none or k=2.", "use --condition=none or --k=2."),
        ("the width of code_levels", "the width of code_levels"),
    ):
        assert flag_values.with_dashes(message) == expected


@pytest.mark.parametrize("mode", ["dynamic", "fixed", "threshold"])
def test_colours_are_not_binarized(mode):
    def coloured(x: np.ndarray) -> Dataset:
        return Dataset("faces", np.tile(x, 3), np.tile(x, 3), None, None, (2, 2, 3))

    start = f"--binarization={mode} is for images of one channel, and those of faces have 3, in "
    for kind, laws in LAWS.items():
        grey = (GREY / (1 if kind == np.uint8 else 255)).astype(kind)
        message = data_refusal(coloured(grey), binarization=mode)
        assert message == f"{start}grey levels; use --binarization=none with --likelihood={laws}."
        # Without binarization, Bernoulli pixels are refused without that remedy.
        message = data_refusal(coloured(grey), binarization="none")
        assert message.endswith(f"have grey levels; use --likelihood={laws}.")
    for model, remedy in (("mixture", " with --likelihood=gaussian"), ("pixelcnn", "")):
        message = data_refusal(coloured(GREY), binarization=mode, model=model)
        assert message == f"{start}grey levels; use --binarization=none{remedy}."
    # Binary colours stay as they are.
    validation.check_data(Config(batch_size=4, binarization=mode), coloured(BINARY))
