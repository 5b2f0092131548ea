"""`experiments.gradients` as a user runs it: on the toy, on a trained run, and with wrong flags."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from elbo_lab import configs, data, methods, training
from elbo_lab.cli import folders, gradient_flags
from elbo_lab.errors import UserError
from elbo_lab.runs import examples, rundir
from elbo_lab.training import checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = {"snr.png", "dsnr.png", "variance.png", "efficiency.png"}
FLAGS = SimpleNamespace(
    objective="iwae",
    estimators="reparam",
    k="1,4",
    m="1",
    run=None,
    data_dir=None,
    manual_dir=None,
    toy=None,
    num_gradients=20,
    oracle_gradients=None,
    batch_size=None,
    seed=0,
)


def gradients_command(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "experiments.gradients", *flags]
    done = subprocess.run(
        [*command, f"--compilation_cache_dir={folder / 'cache'}"],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **quick},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_the_toy_by_default(tmp_path):
    done = gradients_command(
        tmp_path,
        "--estimators=vimco",
        "--k=1,2",
        "--num_gradients=200",
        "--batch_size=8",
        f"--output={tmp_path / 'output'}",
    )
    assert done.returncode == 0, done.stderr
    assert "vimco compares draws: left out at K = 1." in done.stdout
    assert "iwae at the gaussian toy, 8 examples; cpu" in done.stdout
    for line in ("a, 400 parameters", "b, 20 parameters", "mu, 20 parameters"):
        assert line in done.stdout.splitlines()
    # vimco: a pilot of 50, then 200. dreg, the reference: 200, then four times as many.
    assert "gradients 1250/1250" in done.stderr
    output = tmp_path / "output"
    assert {path.name for path in output.iterdir()} == FIGURES | {"gradients.txt", "gradients.json"}
    assert all((output / name).read_bytes().startswith(b"\x89PNG") for name in FIGURES)
    assert done.stdout.endswith((output / "gradients.txt").read_text())
    summary = json.loads((output / "gradients.json").read_text())
    assert summary["study"]["oracle_gradients"] == 800
    cells = [(row["group"], row["estimator"], row["k"]) for row in summary["rows"]]
    assert cells == [(group, "vimco", 2) for group in ("a", "b", "mu")]
    assert all(row["statistics"]["snr"] > 0 for row in summary["rows"])


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A run of two replicates that was stopped before its first step."""
    path = tmp_path_factory.mktemp("run")
    images = np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8)
    np.savez(path / "noise.npz", x_train=images, x_test=images)
    config = configs.make(
        dataset=str(path / "noise.npz"),
        latent_dims=(3,),
        hidden_dims=(8,),
        batch_size=10,
        replicates=2,
    )
    dataset = data.load(config.dataset)
    spec = data.spec_of(dataset, config.binarization)
    loop = training.make_loop(config, methods.make(config, spec, 12), 12)
    keys = training.base_keys(training.replicas(config))
    state = loop.init(keys, *examples.first_rows(dataset))
    digest = data.digest(dataset)
    with rundir.claim(str(path / "run"), config, digest, overwrite=False) as workdir:
        checkpoint.save(workdir / rundir.CHECKPOINTS, 0, (state, keys))
    return path / "run", state.params


@pytest.mark.slow
def test_a_trained_run(tmp_path, run_directory):
    path, _ = run_directory
    done = gradients_command(
        tmp_path, f"--run={path}", "--estimators=reparam", "--k=2", "--num_gradients=20"
    )
    assert done.returncode == 0, done.stderr
    assert f"iwae at {path}, 10 examples" in done.stdout  # the run's batch size
    # 16 pixels, 8 hidden units, 3 latents; one layer's prior has no parameters.
    assert f"encoder, {16 * 8 + 8 + 2 * (8 * 3 + 3)} parameters" in done.stdout
    assert f"decoder, {3 * 8 + 8 + 8 * 16 + 16} parameters" in done.stdout
    assert "prior," not in done.stdout


@pytest.mark.slow
def test_the_subject_of_a_run_is_its_first_replicate_and_its_images(run_directory):
    path, params = run_directory
    name, subject = gradient_flags.run_subject(path, 7)
    assert (name, subject.inference) == (str(path), ("encoder",))
    first = jax.tree.map(lambda leaf: leaf[0], params)
    jax.tree.map(np.testing.assert_array_equal, subject.params, first)
    assert subject.x.shape == (7, 16)
    assert set(np.unique(subject.x)) == {0.0, 1.0}  # dynamic binarization, drawn once
    # The first images do not depend on their number.
    np.testing.assert_array_equal(gradient_flags.run_subject(path, 3)[1].x, subject.x[:3])


def test_help_lists_the_flags_and_a_wrong_flag_is_one_sentence(tmp_path):
    shown = gradients_command(tmp_path, "--help").stdout
    for flag in (*vars(FLAGS), "output", "platform"):
        assert f"\n  --{flag}" in shown
    done = gradients_command(tmp_path, "--objective=iwae", "--estimators=reinforce")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: --estimators must be one or more of reparam, stl, dreg, score, score_loo, vimco, "
        "ovis, wake, wake_dreg for --objective=iwae; got 'reinforce'.\n"
    )


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"objective": "free_bits"}, "functions of log-weights with estimators; got 'free_bits'"),
        ({"objective": "miwae", "estimators": "score_loo"}, "vimco, wake, wake_dreg for"),
        ({"k": "1,0"}, "--k must be whole numbers of at least 1, separated by commas; got '1,0'"),
        ({"k": "four"}, "got 'four'"),
        ({"m": "2"}, "objectives that have it: miwae, piwae"),
        ({"k": "1", "estimators": "vimco,ovis"}, "need more than one; got --k=1"),
    ],
)
def test_invalid_studies_are_refused(monkeypatch, wrong, words):
    monkeypatch.setattr(gradient_flags.flags, "FLAGS", SimpleNamespace(**vars(FLAGS) | wrong))
    with pytest.raises(UserError) as refused:
        gradient_flags.study_from_flags()
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"run": "{folder}"}, "is not a run's directory (cannot read"),
        ({"run": "{folder}", "toy": "gaussian"}, "name different models; give one of them"),
        ({"toy": "quartic"}, "--toy must be one of gaussian; got 'quartic'"),
        ({"batch_size": 2000}, "--batch_size must be at most 1,024, all examples; got 2000"),
    ],
)
def test_subjects_that_do_not_exist_are_refused(monkeypatch, tmp_path, wrong, words):
    wrong = {k: v.format(folder=tmp_path) if isinstance(v, str) else v for k, v in wrong.items()}
    monkeypatch.setattr(gradient_flags.flags, "FLAGS", SimpleNamespace(**vars(FLAGS) | wrong))
    with pytest.raises(UserError) as refused:
        gradient_flags.subject_from_flags()
    assert words in str(refused.value)


def test_runs_of_other_data_or_versions_and_without_checkpoints_are_refused(
    tmp_path, run_directory
):
    path, _ = run_directory
    stored = json.loads((path / "config.json").read_text())
    cases = [
        ({"data_sha256": "0"}, "have changed since"),
        ({}, "has no checkpoint yet"),
        ({"config": stored["config"] | {"colour": "red"}}, "is not a run of this version"),
        ({"config": None}, "is not a run's directory"),
    ]
    for changed, words in cases:
        (tmp_path / "config.json").write_text(json.dumps(stored | changed))
        with pytest.raises(UserError, match=words):
            gradient_flags.run_subject(tmp_path, None)


def test_a_run_with_discrete_latents_is_refused(monkeypatch):
    config = configs.make(model="sbn", latent_dims=(3,))
    trained = SimpleNamespace(config=config, dataset=None, spec=data.Spec("image", (2, 2), 2))
    monkeypatch.setattr(gradient_flags.stored_runs, "load_from", lambda *arguments: trained)
    with pytest.raises(UserError, match="^--run=runs/x is a run of sbn, whose latents are discr"):
        gradient_flags.run_subject(Path("runs/x"), None)


def test_an_output_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output=.* cannot be written"):
        folders.create("output", str(tmp_path / "file" / "output"))
