"""VQ-VAE-2 from the command line: a chain of three runs, its report, samples and refusals."""

import json
import shutil
import signal

import numpy as np
import pytest
from scipy.special import log_expit

import elbo_lab
from elbo_lab.data import contexts
from elbo_lab.runs import derived, examples
from tests.cli import forking
from tests.cli.test_stored_runs_cli import PIXELCNN, SHORT, VQVAE, arrays_of, command

pytestmark = pytest.mark.slow
LEVELS = (*VQVAE, "--channels=4", "--code_levels=2")


@pytest.fixture(scope="module")
def chain(cli):
    """Grids of 2 x 2 and 4 x 4 codes, a density of each, and a VQ-VAE of other codes."""
    folder = cli.folder / "chain"
    cli.run(f"--workdir={folder / 'vqvae'}", *LEVELS, *SHORT)
    codes = f"--dataset=codes:{folder / 'vqvae'}"
    cli.run(f"--workdir={folder / 'top'}", codes, *PIXELCNN, *SHORT)
    codes = f"--dataset=codes:{folder / 'top'}"
    cli.run(f"--workdir={folder / 'bottom'}", codes, *PIXELCNN, *SHORT)
    cli.run(f"--workdir={folder / 'other'}", *LEVELS, *SHORT, "--seed=1")
    return folder


def rows_of(path) -> dict[str, float]:
    """The value of each result of a run, by its symbol or else its name."""
    results = json.loads((path / "summary.json").read_text())["results"]
    return {row["symbol"] or row["name"]: row["value"] for row in results}


def test_the_reports_have_each_level_and_the_whole_bound(chain):
    stored = arrays_of(chain / "bottom" / "evaluation.npz")
    vqvae = elbo_lab.load(chain / "vqvae")
    bottom, top = (derived.load_run(chain / name) for name in ("bottom", "top"))
    x = np.asarray(examples.test_examples(vqvae.config, vqvae.dataset, vqvae.spec).x, np.float64)
    codes = np.concatenate([contexts(bottom.dataset)[1], bottom.dataset.x_test], axis=1)
    np.testing.assert_array_equal(codes, vqvae.encode(x))
    law = vqvae.method.decode(vqvae.params, vqvae.stats, codes, None)
    logits = np.asarray(law.logits, np.float64)
    log_px_code = np.sum(x * log_expit(logits) + (1 - x) * log_expit(-logits), axis=1)
    log_top = arrays_of(chain / "top" / "evaluation.npz")["log_px_0"]
    np.testing.assert_allclose(stored["log_px_code_0"], log_px_code, rtol=1e-5)
    np.testing.assert_allclose(stored["log_pz_above_0"], log_top, rtol=1e-5)
    total = stored["log_px_0"] + log_top + log_px_code
    np.testing.assert_allclose(stored["pair_bound_0"], total, rtol=1e-5)
    rows = rows_of(chain / "bottom")
    assert rows["log p(x|codes) p(codes)"] == pytest.approx(total.mean(), rel=1e-5)
    assert rows["log p(codes above)"] == pytest.approx(log_top.mean(), rel=1e-5)
    assert "log p(x|codes) p(codes)" not in rows_of(chain / "top")
    assert {"used codes of 4, level 1", "used codes of 4, level 2"} <= set(rows_of(chain / "vqvae"))
    line = (chain / "vqvae" / "metrics.jsonl").read_text().splitlines()[0]
    assert {"perplexity_1", "perplexity_2", "restarts_1", "restarts_2"} <= set(json.loads(line))
    # Pictures take both levels: those of the bottom are drawn given the test images' top codes.
    assert (chain / "bottom" / "figures" / "samples.png").exists()
    assert not (chain / "top" / "figures" / "samples.png").exists()
    assert top.spec.shape == (2, 2) and bottom.spec.shape == (4, 4)


def test_samples_go_through_both_priors_and_the_decoder(cli, chain, tmp_path):
    for name in ("a.png", "a.npz", "b.npz"):
        command(cli, "sample", f"--run={chain / 'bottom'}", "--num=9", f"--out={tmp_path / name}")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
    a, b = (arrays_of(tmp_path / f"{name}.npz")["x"] for name in "ab")
    assert a.shape == (9, 8, 8) and np.all((a > 0) & (a < 1))
    np.testing.assert_array_equal(a, b)
    out = tmp_path / "top.npz"
    command(cli, "sample", f"--run={chain / 'top'}", "--num=5", f"--out={out}")
    tokens = arrays_of(out)["x"]
    assert tokens.shape == (5, 2, 2) and tokens.dtype == np.int32


def test_the_bottom_is_evaluated_as_its_run_did(cli, chain):
    command(cli, "evaluate", f"--run={chain / 'bottom'}")
    (folder,) = (chain / "bottom" / "evaluations").iterdir()
    values = arrays_of(folder / "evaluation.npz")
    own = arrays_of(chain / "bottom" / "evaluation.npz")
    assert values.keys() == own.keys()
    for name in own:
        np.testing.assert_allclose(values[name], own[name], rtol=1e-5, atol=1e-5)


def test_the_bottom_stopped_and_resumed_is_never_having_stopped(cli, read, chain, tmp_path):
    flags = (f"--dataset=codes:{chain / 'top'}", *PIXELCNN, "--tensorboard=false")
    never, path = tmp_path / "never", tmp_path / "stopped"
    cli.run(f"--workdir={never}", *flags)
    done = cli.interrupted("step_00000036", signal.SIGTERM, f"--workdir={path}", *flags)
    assert done.returncode == 128 + signal.SIGTERM
    for name in ("vqvae", "top"):  # whose codes are made again, to the same bits
        shutil.rmtree(chain / name / derived.FOLDER)
    cli.run(f"--workdir={path}", *flags)
    assert read["outcome"](path) == read["outcome"](never)


# name -> the command, and its whole message
SENTENCES = {
    "one code": (
        ["run", "--model=vqvae", "--num_codes=1"],
        "--num_codes must be at least 2; got 1.",
    ),
    "no levels": (
        ["run", "--model=vqvae", "--code_levels=0"],
        "--code_levels must be at least 1; got 0.",
    ),
    "too many levels": (
        ["run", "--model=vqvae", "--code_levels=5"],
        "--model=vqvae with --dataset=mnist_small: --code_levels must be at most 4, since "
        "--channels=32,64 take images of (28, 28) to a grid of 7 x 7, which each further level "
        "halves; got 5.",
    ),
    "below the lowest": (
        ["run", "--model=pixelcnn", "--dataset=codes:{chain}/bottom"],
        "--dataset=codes:{chain}/bottom: {chain}/bottom models the lowest level of codes, 2 of 2; "
        "there is none below it.",
    ),
    "pixelrnn below": (
        ["run", "--model=pixelrnn", "--dataset=codes:{chain}/top"],
        "--model=pixelrnn with --dataset=codes:{chain}/top: The model pixelrnn takes no codes that "
        "are given those of the levels above; use pixelcnn.",
    ),
    "labels below": (
        ["run", "--model=pixelcnn", "--condition=label", "--dataset=codes:{chain}/top"],
        "--model=pixelcnn with --dataset=codes:{chain}/top: --condition=label does not go with "
        "codes that are given those of the levels above; use --condition=none.",
    ),
    "a picture of the top": (
        ["sample", "--run={chain}/top", "--out={chain}/x.png"],
        "--out={chain}/x.png is a picture, which takes all 2 levels of codes, and {chain}/top "
        "models level 1: give a run of --dataset=codes:{chain}/top, the level below, or a path "
        "ending in .npz.",
    ),
    "codes of another run": (
        ["evaluate", "--run={chain}/top", "--dataset=codes:{chain}/other"],
        "--dataset=codes:{chain}/other has codes of another run than codes:{chain}/vqvae, on which "
        "{chain}/top was trained; the codes of different runs do not compare.",
    ),
    "codes of another level": (
        ["evaluate", "--run={chain}/bottom", "--dataset=codes:{chain}/vqvae"],
        "--dataset=codes:{chain}/vqvae has test examples of kind token, shape (2, 2) and 4 levels; "
        "{chain}/bottom was trained on kind token, shape (4, 4) and 4 levels, given codes above.",
    ),
}


@pytest.fixture(scope="module")
def refused(cli, chain, tmp_path_factory) -> dict[str, tuple[str, str, str]]:
    """Name of each command -> exit status, standard output and standard error."""
    folder, commands = tmp_path_factory.mktemp("outputs"), {}
    for name, (words, _) in SENTENCES.items():
        commands[name] = [word.format(chain=chain) for word in words]
        if words[0] == "run":
            commands[name] += [f"--workdir={folder / 'never'}", "--epochs=1"]
    outputs = forking.run_all(commands, folder, cli.environment)
    assert not (folder / "never").exists()
    return outputs


@pytest.mark.parametrize("name", SENTENCES)
def test_refusals_are_one_sentence(chain, refused, name):
    sentence = SENTENCES[name][1].format(chain=chain)
    assert refused[name] == ("2", "", f"Error: {sentence}\n")
