"""Every model family and the autoencoder: trained to the end, stopped and resumed, replicated."""

import json
import signal

import jax
import numpy as np
import pytest

import elbo_lab

pytestmark = pytest.mark.slow

# Tiny sizes. An empty flag unsets a setting of mlp that the tests' command line sets.
FAMILIES = {
    "conv": ("--model=conv", "--hidden_dims=", "--channels=4,4", "--k=2"),
    "sbn": ("--model=sbn", "--latent_dims=3,2", "--hidden_dims=", "--k=2"),
    "sbn, baseline": (
        *("--model=sbn", "--latent_dims=3", "--hidden_dims=", "--objective=elbo", "--k=1"),
        *("--estimator=score", "--score_baseline=network"),
    ),
    "pixelcnn": ("--model=pixelcnn", "--hidden_dims=", "--latent_dims=", "--width=4", "--layers=2"),
    "pixelvae": (
        *("--model=pixelvae", "--hidden_dims=", "--channels=4", "--width=4", "--layers=1"),
        *("--receptive_field=5", "--latent_features=2", "--decoder_dropout=0.2"),
        *("--encoder_steps=2", "--posterior_min_kl=0.1"),
    ),
    "vqvae": (
        *("--model=vqvae", "--hidden_dims=", "--latent_dims=", "--channels=4,4"),
        *("--num_codes=8", "--code_dim=2", "--residual_blocks=0"),
    ),
    "autoencoder": ("--objective=autoencoder",),
    "labels": ("--condition=label",),
    "mixture": (
        *("--model=mixture", "--hidden_dims=", "--latent_dims=", "--components=3"),
        "--em_decay=0.98",
        "--learning_rate=0.001",  # the default: EM takes no other
    ),
}
FLAGS = ("--probe_every=12", "--tensorboard=false")
# The terms of each loss; the quantity by which each is compared; its figures.
TERMS = {
    "conv": {"bound", "kl", "reconstruction"},
    "sbn": {"bound", "kl", "reconstruction"},
    "sbn, baseline": {"bound", "kl", "reconstruction", "baseline_loss"},
    "pixelcnn": {"nll"},
    "pixelvae": {"bound", "kl", "reconstruction"},
    "vqvae": {"reconstruction", "commitment", "loss", "perplexity", "restarts"},
    "autoencoder": {"reconstruction"},
    "labels": {"bound", "kl", "reconstruction"},
    "mixture": {"nll"},
}
HEADLINES = {
    "conv": "log_likelihood",
    "sbn": "log_px",
    "sbn, baseline": "log_px",
    "pixelcnn": "log_px",
    "pixelvae": "log_likelihood",
    "vqvae": "log_px_code",
    "autoencoder": "log_px_mean",
    "labels": "log_likelihood",
    "mixture": "log_px",
}
CURVES = {"learning_curves", "test_curves"}
FIGURES = {
    "conv": CURVES | {"active_units", "samples", "reconstructions"},
    "sbn": CURVES | {"active_units", "samples", "reconstructions"},
    "sbn, baseline": CURVES | {"active_units", "samples", "reconstructions"},
    "pixelcnn": CURVES | {"samples"},
    "pixelvae": CURVES | {"active_units", "samples", "reconstructions"},
    "vqvae": CURVES | {"reconstructions"},
    "autoencoder": CURVES | {"active_units", "samples", "reconstructions"},
    "labels": CURVES | {"active_units", "samples", "reconstructions"},
    "mixture": CURVES | {"samples", "components"},
}


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def summary_of(path) -> dict:
    return json.loads((path / "summary.json").read_text())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def never_stopped(cli, family):
    """A run that was never stopped: its folder and its output."""
    path = cli.folder / f"never_stopped_{family}"
    return path, cli.run(f"--workdir={path}", *FAMILIES[family], *FLAGS)


def test_a_run_to_its_end(read, family, never_stopped):
    path, done = never_stopped
    summary, lines = summary_of(path), lines_of(path)
    assert set(summary["figures"]) == FIGURES[family]
    for name in summary["figures"]:
        assert (path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert {p.stem for p in (path / "figures").iterdir()} == FIGURES[family]
    assert [line["step"] for line in lines] == list(range(6, read["steps"] + 1, 6))
    names = set(lines[0]) - {"step", "seconds"}
    assert names == TERMS[family] == set(summary["terms"])
    # Every second line has measurements of the first test batch.
    headline = HEADLINES[family]
    assert summary["headline"] == headline
    assert [f"test_{headline}" in line for line in lines] == [False, True] * 10
    assert lines[-1][f"test_{headline}"] > lines[1][f"test_{headline}"]
    with np.load(path / "evaluation.npz") as file:
        values = file[f"{headline}_0"].astype(np.float64)
    assert values.shape == (23,)
    # The last measurement is of the trained model: it differs from the evaluation in draws alone.
    of_first_batch = values[: elbo_lab.load(path).method.measure_batch].mean()
    tolerance = 0.3 if family in ("conv", "labels", "pixelvae") else 1e-3
    assert lines[-1][f"test_{headline}"] == pytest.approx(of_first_batch, abs=tolerance)
    result = next(r for r in summary["results"] if r["value"] == pytest.approx(values.mean()))
    assert result["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(23), rel=1e-5)
    assert str(path) in unwrapped(done.stdout)


def unwrapped(text: str) -> str:
    """The words of printed lines, which are wrapped."""
    return " ".join(text.split())


def test_stopped_and_resumed_is_never_having_stopped(cli, read, family, never_stopped, tmp_path):
    flags = (f"--workdir={tmp_path}", *FAMILIES[family], *FLAGS)
    done = cli.interrupted("step_00000036", signal.SIGTERM, *flags)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "same command goes on" in done.stderr.splitlines()[-1]
    assert read["records"](tmp_path) == 7
    cli.run(*flags)
    assert read["outcome"](tmp_path) == read["outcome"](never_stopped[0])


def test_replicates_are_runs_of_their_seeds(cli, family, never_stopped, tmp_path):
    flags = ("--replicates=2", "--epochs=2", "--eval_k=5")
    done = cli.run(f"--workdir={tmp_path}", *FAMILIES[family], *FLAGS, *flags)
    assert "2 replicates of 2, seeds from 0" in unwrapped(done.stdout)
    summary, lines = summary_of(tmp_path), lines_of(tmp_path)
    assert summary["failed_replicates"] == [] and set(summary["replicates"]) == {"0", "1"}
    with np.load(tmp_path / "evaluation.npz") as file:
        both = [file[f"{HEADLINES[family]}_{r}"] for r in range(2)]
    assert both[0].shape == both[1].shape == (23,)
    assert not np.array_equal(*both)
    # The first replicate has the seed of the other run, whose learning rate is nearly the same.
    first = lines_of(never_stopped[0])[0]
    for name in TERMS[family]:
        assert lines[0][name][0] == pytest.approx(first[name], rel=0.02, abs=0.02)
    assert lines[0][summary["terms"][0]][0] != lines[0][summary["terms"][0]][1]
    assert np.shape(lines[1][f"test_{HEADLINES[family]}"]) == (2,)


def test_a_gan_is_trained_and_reported_without_a_headline(cli, tmp_path):
    settings = ("--objective=gan", "--gan_loss=wasserstein", "--epochs=2")
    done = cli.run(f"--workdir={tmp_path}", *settings, *FLAGS)
    summary, lines = summary_of(tmp_path), lines_of(tmp_path)
    assert summary["headline"] is None
    assert set(summary["terms"]) == {"discriminator", "generator"} <= set(lines[0])
    assert set(summary["figures"]) == CURVES | {"samples"}
    assert {"test_critic_real", "test_critic_generated"} <= set(lines[1])
    for row in ("discriminator at samples", "loss of the discriminator", "loss of the generator"):
        assert row in unwrapped(done.stdout)
    assert "gan_loss = wasserstein, gradient_penalty = 10" in unwrapped(done.stdout)
    assert len(elbo_lab.load(tmp_path).sample(jax.random.key(0), 3)) == 3
