"""Stored runs from the command line: evaluated again, sampled, and used as data of a second run."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, log_expit

import elbo_lab
from elbo_lab.runs import derived, examples
from tests.cli import forking, refusals, stored_refusals
from tests.cli.conftest import REPOSITORY, command

pytestmark = pytest.mark.slow
SHORT = ("--epochs=2", "--tensorboard=false")
CONV = ("--model=conv", "--hidden_dims=", "--latent_dims=2", "--channels=4,4", "--k=2")
NO_MLP = ("--hidden_dims=", "--latent_dims=")
VQVAE = (
    *("--model=vqvae", *NO_MLP, "--channels=4,4", "--num_codes=4", "--code_dim=2"),
    "--residual_blocks=0",
)
PIXELCNN = ("--model=pixelcnn", *NO_MLP, "--width=4", "--layers=2", "--output_width=4")


def files_of(path) -> dict[Path, tuple[int, bytes]]:
    """Time and content of each file of a run, except evaluations and derived data."""
    return {
        file: (file.stat().st_mtime_ns, file.read_bytes())
        for file in path.rglob("*")
        if file.is_file() and not {"evaluations", derived.FOLDER} & set(file.parts)
    }


def arrays_of(path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def runs(cli) -> Path:
    """A VAE and a VQ-VAE of images, and models of their features and codes."""
    folder = cli.folder / "stored"
    cli.run(f"--workdir={folder / 'conv'}", *CONV, *SHORT)
    cli.run(f"--workdir={folder / 'vqvae'}", *VQVAE, *SHORT)
    codes = f"--dataset=codes:{folder / 'vqvae'}"
    cli.run(f"--workdir={folder / 'prior'}", codes, *PIXELCNN, *SHORT)
    features = (f"--dataset=features:{folder / 'conv'}", "--binarization=none")
    features += ("--likelihood=gaussian", "--k=2")
    cli.run(f"--workdir={folder / 'upper'}", *features, *SHORT)
    return folder


# experiments.evaluate


def test_evaluated_as_the_run_was_gives_its_numbers(cli, runs):
    done = command(cli, "evaluate", f"--run={runs / 'conv'}", f"--run={runs / 'prior'}")
    for name in ("conv", "prior"):
        assert str(runs / name / "evaluations") in done.stdout
        (folder,) = (runs / name / "evaluations").iterdir()
        own = arrays_of(runs / name / "evaluation.npz")
        values = arrays_of(folder / "evaluation.npz")
        assert values.keys() == own.keys()
        for quantity in own:
            np.testing.assert_allclose(values[quantity], own[quantity], rtol=1e-5, atol=1e-5)
        shutil.rmtree(runs / name / "evaluations")


def test_evaluated_again_with_other_draws_and_measures(cli, runs):
    run = runs / "conv"
    before = files_of(run)
    flags = (f"--run={run}", "--k=3", "--eval_k=40", "--seed=5")
    flags += ("--measures=quantities,squared_error",)
    done = command(cli, "evaluate", *flags)
    assert files_of(run) == before
    for words in ("L_40", "L_3", "squared error", "evaluations", "23 test examples"):
        assert words in done.stdout
    (folder,) = (run / "evaluations").iterdir()
    values = arrays_of(folder / "evaluation.npz")
    own = arrays_of(run / "evaluation.npz")
    assert not np.allclose(values["elbo_0"], own["elbo_0"], rtol=1e-5)
    # The same quantity, averaged over 40 and over 20 draws of each image.
    difference = values["elbo_0"].mean() - own["elbo_0"].mean()
    assert abs(difference) < 0.5
    # |x - E[x|z]|^2 / D in NumPy.
    trained = elbo_lab.load(run)
    x = np.asarray(
        examples.test_examples(trained.config, trained.dataset, trained.spec).x, np.float64
    )
    law = trained.method.decode(trained.params, (), trained.encode(x), None)
    error = np.mean((x - expit(np.asarray(law.logits, np.float64))) ** 2, axis=1)
    np.testing.assert_allclose(values["squared_error_0"], error, rtol=1e-4)
    # The same command computes nothing; a damaged evaluation is computed again.
    again = command(cli, "evaluate", *flags)
    assert again.stdout == done.stdout
    assert "evaluation" not in again.stderr
    (folder / "summary.json").write_text('{"results": [{}]')
    mended = command(cli, "evaluate", *flags)
    assert mended.stdout == done.stdout
    assert "evaluation 23/23 examples" in mended.stderr
    assert arrays_of(folder / "evaluation.npz").keys() == values.keys()
    assert files_of(run) == before


def test_evaluated_on_other_data(cli, runs, tmp_path):
    images = np.random.default_rng(3).integers(0, 256, (9, 8, 8), np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, x_test=images[:5])
    flags = (f"--run={runs / 'conv'}", f"--dataset={tmp_path / 'noise.npz'}")
    done = command(cli, "evaluate", *flags)
    assert "noise, 5 test examples" in done.stdout
    folder = done.stdout.split("kept in")[1].split()[0]
    values = arrays_of(Path(folder) / "evaluation.npz")
    own = arrays_of(runs / "conv" / "evaluation.npz")
    assert values["log_likelihood_0"].shape == (5,)
    # A model of blobs gives noise a lower likelihood than blobs.
    assert values["log_likelihood_0"].mean() < own["log_likelihood_0"].mean() - 5
    first = command(cli, "evaluate", *flags, "--test_examples=3")
    assert "noise, the first 3 of 5 test examples" in first.stdout
    assert "evaluation 3/3 examples" in first.stderr
    folder = first.stdout.split("kept in")[1].split()[0]
    for quantity, array in arrays_of(Path(folder) / "evaluation.npz").items():
        np.testing.assert_array_equal(array, values[quantity][:3])


# Runs that start at the parameters of another one


def test_a_run_starts_at_the_parameters_of_another(cli, runs, tmp_path):
    # Steps of 1e-30 round to nothing in float32, and bounds are evaluated by the same draws.
    still = ("--optimizer=sgd", "--learning_rate=1e-30", f"--init_from={runs / 'conv'}")
    cli.run(f"--workdir={tmp_path / 'still'}", *CONV, *still, *SHORT)
    expected = arrays_of(runs / "conv" / "evaluation.npz")
    values = arrays_of(tmp_path / "still" / "evaluation.npz")
    for quantity in expected:
        np.testing.assert_allclose(values[quantity], expected[quantity], rtol=1e-5, atol=1e-5)
    # Nothing is begun by a run that cannot start.
    flags = (f"--workdir={tmp_path / 'none'}", *CONV, "--latent_dims=3", *SHORT)
    done = cli.run(*flags, f"--init_from={runs / 'conv'}", status=2)
    assert f"--init_from: {runs / 'conv'} does not fit the model: " in done.stderr
    assert not (tmp_path / "none").exists()


# experiments.sample


def test_samples_as_a_picture_and_as_arrays(cli, runs, tmp_path):
    run = f"--run={runs / 'conv'}"
    for name in ("a.png", "a.npz", "b.npz"):
        command(cli, "sample", run, "--num=9", f"--out={tmp_path / 'new' / name}")
    command(cli, "sample", run, "--num=9", "--seed=1", f"--out={tmp_path / 'c.npz'}")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
    a, b = (arrays_of(tmp_path / "new" / f"{name}.npz")["x"] for name in "ab")
    assert a.shape == (9, 8, 8)
    assert np.all((a > 0) & (a < 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, arrays_of(tmp_path / "c.npz")["x"])


def test_samples_of_stage_two_are_decoded_by_stage_one(cli, runs, tmp_path):
    out = tmp_path / "x.npz"
    command(cli, "sample", f"--run={runs / 'prior'}", "--num=9", f"--out={out}")
    x = arrays_of(out)["x"]
    assert x.shape == (9, 8, 8)
    # Each sample is the decoding of one of the 4^4 grids of codes.
    vqvae = elbo_lab.load(runs / "vqvae")
    grids = np.array(list(itertools.product(range(4), repeat=4)), np.int32)
    law = vqvae.method.decode(vqvae.params, vqvae.stats, grids, None)
    images = expit(np.asarray(law.logits, np.float64)).reshape(-1, 8, 8)
    nearest = np.abs(images[:, None] - x).max(axis=(2, 3)).min(axis=0)
    np.testing.assert_array_less(nearest, 1e-4)
    for run in ("prior", "upper"):
        picture = tmp_path / f"{run}.png"
        command(cli, "sample", f"--run={runs / run}", "--num=9", f"--out={picture}")
        assert picture.read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("show", "run", "name"),
    [
        ("interpolation", "conv", "x.png"),
        ("traversal", "upper", "x.svg"),  # of features, which the first run decodes
        ("plane", "conv", "x.npz"),
        ("map", "conv", "x.svg"),
        ("shared_z", "conv", "x.png"),
    ],
)
def test_the_latent_space_as_pictures_and_as_arrays(cli, runs, tmp_path, show, run, name):
    out = tmp_path / "new" / name
    done = command(cli, "sample", f"--run={runs / run}", f"--show={show}", f"--out={out}")
    assert done.stdout.endswith(f" of {runs / run}: {out}\n")
    if out.suffix == ".png":
        assert out.read_bytes().startswith(b"\x89PNG\r\n")
    elif out.suffix == ".svg":
        assert xml.dom.minidom.parse(str(out)).documentElement.tagName == "svg"
    else:
        arrays = arrays_of(out)
        assert (arrays["x"].shape, arrays["axes"].shape) == ((20, 20, 8, 8), (2, 20))


# Stage two


def test_the_bound_of_the_pair_is_the_sum_of_both_runs(runs):
    vqvae = elbo_lab.load(runs / "vqvae")
    x = np.asarray(examples.test_examples(vqvae.config, vqvae.dataset, vqvae.spec).x, np.float64)
    codes = vqvae.encode(x)
    law = vqvae.method.decode(vqvae.params, vqvae.stats, codes, None)
    logits = np.asarray(law.logits, np.float64)
    log_px_z = np.sum(x * log_expit(logits) + (1 - x) * log_expit(-logits), axis=1)
    values = arrays_of(runs / "prior" / "evaluation.npz")
    expected = values["log_px_0"] + log_px_z
    np.testing.assert_allclose(values["pair_bound_0"], expected, rtol=1e-5)
    prior = elbo_lab.load(runs / "prior")
    np.testing.assert_array_equal(prior.dataset.x_test, codes)
    np.testing.assert_array_equal(prior.dataset.y_test, np.arange(23) % 2)
    names = [
        r["name"] for r in json.loads((runs / "prior" / "summary.json").read_text())["results"]
    ]
    assert "codes and their density" in names


def test_codes_are_encoded_once(cli, runs):
    (file,) = (runs / "vqvae" / derived.FOLDER).iterdir()
    content, time = file.read_bytes(), file.stat().st_mtime_ns
    flags = (f"--workdir={runs / 'prior'}", f"--dataset=codes:{runs / 'vqvae'}", *PIXELCNN, *SHORT)
    assert "This run is complete" in cli.run(*flags).stdout
    assert file.stat().st_mtime_ns == time
    file.write_bytes(content[: len(content) // 2])
    assert "This run is complete" in cli.run(*flags).stdout
    assert file.read_bytes() == content


def test_stage_two_stopped_and_resumed_is_never_having_stopped(cli, read, runs, tmp_path):
    vqvae = runs / "vqvae"
    flags = (f"--dataset=codes:{vqvae}", *PIXELCNN, "--probe_every=18", "--tensorboard=false")
    never, path = tmp_path / "never", tmp_path / "stopped"
    cli.run(f"--workdir={never}", *flags)
    done = cli.interrupted("step_00000036", signal.SIGTERM, f"--workdir={path}", *flags)
    assert done.returncode == 128 + signal.SIGTERM
    shutil.rmtree(vqvae / derived.FOLDER)  # made again, to the same codes
    cli.run(f"--workdir={path}", *flags)
    assert read["outcome"](path) == read["outcome"](never)


def test_a_first_run_that_was_trained_again_or_deleted_is_reported(cli, runs, tmp_path):
    stage_one = runs / "vqvae"
    shutil.copytree(stage_one, tmp_path / "kept")
    name = f"codes:{stage_one}"
    flags = (f"--workdir={runs / 'prior'}", f"--dataset={name}", *PIXELCNN, *SHORT)
    again = f"{stage_one}, whose codes these are, was trained again since"
    before = files_of(runs / "prior")
    try:
        cli.run(f"--workdir={stage_one}", *VQVAE, *SHORT, "--seed=1", "--overwrite")
        assert f"Differing fields: {again}." in cli.refused(*flags)
        for script in ("sample", "evaluate"):
            out = [f"--out={tmp_path / 'x.png'}"] if script == "sample" else []
            done = command(cli, script, f"--run={runs / 'prior'}", *out, status=2)
            sentence = f"Error: --run={runs / 'prior'} cannot be loaded: {again}.\n"
            assert done.stderr == sentence
        shutil.rmtree(stage_one)
        missing = f"{stage_one} is not a run's directory (cannot read"
        assert cli.refused(*flags).startswith(f"--dataset={name}: {missing}")
        done = command(cli, "sample", f"--run={runs / 'prior'}", status=2)
        assert f"was trained on {name}: {missing}" in done.stderr
    finally:
        shutil.rmtree(stage_one, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", stage_one)
    assert files_of(runs / "prior") == before
    assert "This run is complete" in cli.run(*flags).stdout


# From Python, as in README.md

LIBRARY = """\
import sys
import jax
import numpy as np
import elbo_lab

x = np.random.default_rng(0).random((5, 8, 8)) > 0.5
trained = elbo_lab.load(sys.argv[1])
embeddings = trained.encode(x)
samples = trained.sample(jax.random.key(0), 6)
log_px = trained.measure(jax.random.key(1), x)["log_likelihood"]
print(embeddings.shape, samples.shape, log_px.shape, bool((log_px < 0).all()))
try:
    trained.encode(x[:, :7])
except ValueError as error:
    print(error)
"""


def test_a_python_process_without_flags(cli, runs):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIBRARY, str(runs / "conv")],
        **{"cwd": REPOSITORY, "env": cli.environment, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "(5, 2) (6, 8, 8) (5,) True",
        "x must have 64 values per example, in the shape [N, D] or [N, 8, 8]; got the shape "
        "(5, 7, 8).",
    ]


# Refusals

SENTENCES = refusals.SENTENCES | stored_refusals.SENTENCES


@pytest.fixture(scope="module")
def places(runs, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("refused")
    names = ("unfinished", "empty", "floats.npz", "colours.npz")
    places = {"runs": runs} | {n: folder / n for n in names}
    for name in ("unfinished", "empty"):
        shutil.copytree(runs / "vqvae", places[name])
    newest = max((places["unfinished"] / "checkpoints").iterdir())
    shutil.copytree(newest, newest.with_name("step_00000006"))
    for path in (newest, places["empty"] / "checkpoints"):
        shutil.rmtree(path)
    images = np.random.default_rng(0).random((30, 8, 8))
    np.savez(places["floats.npz"], x_train=images, x_test=images)
    colours = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    np.savez(places["colours.npz"], x_train=colours, x_test=colours)
    return {name.partition(".")[0]: path for name, path in places.items()}


@pytest.fixture(scope="module")
def refused(cli, places, tmp_path_factory) -> dict[str, tuple[str, str, str]]:
    """Name of each command -> exit status, standard output and standard error."""
    folder, before = tmp_path_factory.mktemp("outputs"), files_of(places["runs"])
    commands = {}
    for name, (words, _) in SENTENCES.items():
        commands[name] = [word.format(**places) for word in words]
        if words[0] == "run":
            commands[name] += [f"--workdir={folder / 'never'}", "--epochs=1"]
    outputs = forking.run_all(commands, folder, cli.environment)
    assert files_of(places["runs"]) == before
    assert not (folder / "never").exists()
    return outputs


@pytest.mark.parametrize("name", SENTENCES)
def test_refusals_are_one_sentence(places, refused, name):
    status, out, err = refused[name]
    sentence = "Error: " + SENTENCES[name][1].format(**places)
    assert (status, out) == ("2", "")
    assert err.count("\n") == 1 and err.endswith(".\n")
    assert err == f"{sentence}\n" if sentence[-1] == "." else err.startswith(sentence)


@pytest.mark.parametrize("model", [CONV, VQVAE], ids=["conv", "vqvae"])
@pytest.mark.parametrize("shape", [(7, 9, 3), (1, 1), (1, 5)], ids=str)
def test_images_of_odd_and_smallest_sizes(cli, tmp_path, model, shape):
    images = np.random.default_rng(0).integers(0, 2, (30, *shape), np.uint8)
    np.savez(tmp_path / "odd.npz", x_train=images, x_test=images[:11])
    path = tmp_path / "run"
    cli.run(f"--workdir={path}", f"--dataset={tmp_path / 'odd.npz'}", *model, *SHORT)
    summary = json.loads((path / "summary.json").read_text())
    assert summary["data"]["image_shape"] == list(shape)
    values = arrays_of(path / "evaluation.npz")
    # Binary noise has log p(x) = -log 2 for each of D pixels at best; chance gives a little more.
    dim = np.prod(shape)
    headline = values[f"{summary['headline']}_0"]
    assert headline.shape == (11,) and np.all(headline < 0)
    assert headline.mean() < -0.4 * dim
    assert os.path.exists(path / "figures" / "reconstructions.png")
