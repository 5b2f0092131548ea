"""Runs on a user's file, with other names of arrays and another order of axes."""

import numpy as np
import pytest


@pytest.mark.slow
def test_colour_images_of_one_split_with_channels_first(cli, tmp_path):
    with np.load(cli.data) as blobs:
        grey, labels = blobs["x_train"], blobs["y_train"]
    path = tmp_path / "sprites.npz"
    factors = np.stack([0 * labels, labels], axis=1)
    np.savez(path, imgs=np.stack([grey, grey // 2, grey // 3], axis=1), latents_classes=factors)
    flags = [f"--dataset={path}", f"--workdir={tmp_path / 'run'}", "--epochs=2", "--latent_dims=2"]
    flags += ["--binarization=none", "--likelihood=gaussian"]
    assert "--held_out must be at least 1 for sprites" in cli.refused(*flags)
    out = " ".join(cli.run(*flags, "--held_out=20").stdout.split())
    for note in (
        "sprites, imgs read as [N, 3, H, W] (PyTorch's order), latents_classes read at column 1",
        "20 of its 60 images, drawn once, are the test images, no binarization",
        "one standard error over 20 images",
    ):
        assert note in out
    assert (tmp_path / "run" / "figures" / "latent_space.png").exists()
