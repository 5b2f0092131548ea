"""Runs of texts from the command line: trained, printed, completed, walked between and measured."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import elbo_lab
from elbo_lab.runs import text_records
from tests.cli import forking

pytestmark = pytest.mark.slow
FAMILY = ("--model=text", "--hidden_dims=", "--embedding_dim=4", "--width=4", "--layers=1")
SHORT = ("--epochs=2", "--tensorboard=false", "--held_out=20")
VOCABULARY = "abcdefg"
# name -> the command; {run} is the run of texts, {images} one of images, {folder} for files.
COMMANDS = {
    "prefix": ["sample", "--run={run}", "--prefix=abc", "--num=4"],
    "printed": ["sample", "--run={run}", "--num=5"],
    "file": ["sample", "--run={run}", "--num=5", "--out={folder}/x.txt"],
    "arrays": ["sample", "--run={run}", "--num=5", "--out={folder}/x.npz"],
    "walk": ["sample", "--run={run}", "--show=interpolation", "--poem=abcabc", "--poem=gfedcb"],
    "test texts": ["sample", "--run={run}", "--show=interpolation", "--examples=3,0"],
    "measured": ["evaluate", "--run={run}", "--measures=quantities,text", "--eval_k=4"],
    "first texts": [
        *("evaluate", "--run={run}", "--measures=text", "--test_examples=3", "--eval_k=4")
    ],
    "other texts": ["evaluate", "--run={run}", "--dataset={folder}/more.txt", "--eval_k=4"],
    "features": [
        *("run", "--workdir={folder}/features", "--dataset=features:{run}", "--eval_k=5"),
        *("--binarization=none", "--likelihood=gaussian", "--epochs=1", "--tensorboard=false"),
    ],
}
# name -> the command, and its whole message
REFUSED = {
    "unequal": (
        ["run", "--model=text", "--dataset={folder}/unequal.txt"],
        "--dataset={folder}/unequal.txt: {folder}/unequal.txt: line 2 has 4 characters, and line 1 "
        "has 3; all lines must have the same length.",
    ),
    "one split": (
        ["run", "--model=text", "--dataset={folder}/rhymes.txt"],
        "--held_out must be at least 1 for rhymes, which has no test lines: that many of its "
        "80 lines are drawn once as test lines; got 0.",
    ),
    "text model of images": (
        ["run", "--model=text", "--dataset={blobs}"],
        "--model=text with --dataset={blobs}: The model text takes texts, tokens in a row; these "
        "are of kind image and of the shape (8, 8).",
    ),
    "image model of texts": (
        ["run", "--model=conv", "--dataset=tang_quatrains"],
        "--model=conv with --dataset=tang_quatrains: The model conv takes images, not tokens.",
    ),
    "no mean": (
        ["run", "--model=text", "--dataset=tang_quatrains", "--objective=lambda_vae"],
        "--objective=lambda_vae needs the mean of p(x|z), which --model=text does not have in "
        "closed form.",
    ),
    "unknown character": (
        ["sample", "--run={run}", "--prefix=abz"],
        "--prefix: 'abz' has the character 'z', which is not among the 7 characters of the text "
        "that {run} saw.",
    ),
    "unknown character in a file": (
        ["evaluate", "--run={run}", "--dataset={folder}/unknown.txt"],
        "--dataset={folder}/unknown.txt: line 2 has the character 'z', which is not among the 7 "
        "characters that the run was trained on.",
    ),
    "other lengths": (
        ["evaluate", "--run={run}", "--dataset={folder}/long.txt"],
        "--dataset={folder}/long.txt: line 1 has 7 characters; all lines must have 6, as those "
        "that the run was trained on.",
    ),
    "no file": (
        ["evaluate", "--run={run}", "--dataset={folder}/gone.txt"],
        "--dataset={folder}/gone.txt cannot be read (No such file or directory); give the path of "
        "an existing .txt file.",
    ),
    "texts for a model of images": (
        ["evaluate", "--run={images}", "--dataset={folder}/more.txt"],
        "--dataset={folder}/more.txt is a text file; {images} was trained on kind image, shape "
        "(8, 8) and 2 levels.",
    ),
    "other characters": (
        [
            *("run", "--workdir={folder}/none", "--dataset={folder}/others.txt", *FAMILY, *SHORT),
            *("--batch_size=10", "--held_out=1", "--latent_dims=3", "--init_from={run}"),
        ],
        "--init_from: {run} was trained on texts of another vocabulary, 7 characters there and 7 "
        "here ('a' only there); a token must mean the same character in both.",
    ),
    "empty prefix": (
        ["sample", "--run={run}", "--prefix="],
        "--prefix must have 1 to 5 characters, since the texts of {run} have 6; got 0.",
    ),
    "no examples": (
        ["sample", "--run={run}", "--show=interpolation", "--examples="],
        "--examples must be whole numbers of at least 0, separated by commas; got ''.",
    ),
    "long prefix": (
        ["sample", "--run={run}", "--prefix=abcabca"],
        "--prefix must have 1 to 5 characters, since the texts of {run} have 6; got 7.",
    ),
    "prefix of images": (
        ["sample", "--run={images}", "--prefix=abc"],
        "--prefix needs a run of texts; {images} was trained on {blobs}.",
    ),
    "text of images": (
        ["sample", "--run={images}", "--out={folder}/y.txt"],
        "--out={folder}/y.txt is a text; --show=samples of {images} gives none. A path must end in "
        ".png, .svg or .npz.",
    ),
    "picture of texts": (
        ["sample", "--run={run}", "--out={folder}/y.png"],
        "--out={folder}/y.png is a picture, but {run} is a model of texts; give a path ending in "
        ".txt or .npz, or leave it out: texts are printed.",
    ),
    "traversal of texts": (
        ["sample", "--run={run}", "--show=traversal", "--out={folder}/y.png"],
        "--out={folder}/y.png is a picture, but {run} is a model of token examples; give a path "
        "ending in .npz.",
    ),
    "short poem": (
        ["sample", "--run={run}", "--show=interpolation", "--poem=abc", "--poem=abcabc"],
        "--poem must have 6 characters, as the texts of {run} have; got 3 in 'abc'.",
    ),
    "poem of samples": (
        ["sample", "--run={run}", "--poem=abcabc"],
        "--poem has no meaning with --show=samples; leave it out.",
    ),
    "text of images measured": (
        ["evaluate", "--run={images}", "--measures=text"],
        "--measures=text needs a run of texts; {images} was trained on {blobs}.",
    ),
}


@pytest.fixture(scope="module")
def places(cli) -> dict:
    """A run of texts, one of images, and files of texts, by name."""
    folder = cli.folder / "texts"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list(VOCABULARY), 6)) for _ in range(80)]
    (folder / "rhymes.txt").write_text("\n".join(lines))
    (folder / "unequal.txt").write_text("abc\nabcd\n")
    (folder / "more.txt").write_text("abcdef\n\nggggga\n")
    (folder / "unknown.txt").write_text("abcdef\nabcdez\n")
    (folder / "long.txt").write_text("abcdefg\nabcdefg\n")
    (folder / "others.txt").write_text("\n".join(["hbcdef", "gfedcb"] * 10))
    run, images = folder / "run", folder / "images"
    flags = (f"--dataset={folder / 'rhymes.txt'}", *FAMILY, *SHORT)
    table = cli.run(f"--workdir={run}", *flags).stdout
    cli.run(f"--workdir={images}", "--epochs=1", "--tensorboard=false", "--k=2")
    return {"folder": folder, "run": run, "images": images, "blobs": cli.data, "table": table}


@pytest.fixture(scope="module")
def outputs(cli, places) -> dict[str, tuple[str, str, str]]:
    """Exit status, output and error output of each command."""
    folder = cli.folder / "outputs_of_texts"
    folder.mkdir()
    commands = COMMANDS | {name: words for name, (words, _) in REFUSED.items()}
    cache = f"--compilation_cache_dir={cli.cache}"
    filled = {
        name: [*(word.format(**places) for word in words), cache]
        for name, words in commands.items()
    }
    environment = {**cli.environment, "PYTHONUTF8": "1"}
    return forking.run_all(filled, folder, environment)


def test_a_run_writes_texts_in_place_of_pictures(places):
    run = places["run"]
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["figures"]) == {"learning_curves", "active_units"}
    assert sorted(os.listdir(run / "figures")) == ["active_units.png", "learning_curves.png"]
    text = text_records.read(run)
    assert text == elbo_lab.load(run).dataset.text == (VOCABULARY, 6, 6)
    samples = (run / "samples.txt").read_text()
    assert samples.index("Samples from the prior") < samples.index("Reconstructions")
    rows = [line.split() for line in samples.splitlines() if line.startswith(("test", "drawn"))]
    assert len(rows) == 40 and all(set(row[1]) <= set(VOCABULARY) for row in rows)
    tests = text.decode(elbo_lab.load(run).dataset.x_test)
    assert [row[1] for row in rows[::2]] == tests
    assert "7 different characters" in places["table"] and "nats per example" in places["table"]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(places, outputs, name):
    status, out, err = outputs[name]
    assert status == "0" and "Traceback" not in err, err
    folder, lines = places["folder"], out.splitlines()
    if name == "prefix":
        assert "effective sample size of 10,000 draws of z" in lines[0]
        assert len(lines) == 6 and all(line.startswith("abc") for line in lines[2:])
    if name == "printed":
        assert len(lines) == 7 and all(len(line) == 6 for line in lines[2:])
    if name == "file":
        # The same draws as those that are printed.
        assert (folder / "x.txt").read_text().splitlines() == outputs["printed"][1].splitlines()[2:]
    if name == "arrays":
        with np.load(folder / "x.npz") as file:
            assert list(file["text"]) == text_records.read(places["run"]).decode(file["x"])
    if name == "walk":
        assert lines[0] == f"walks between 1 pair of texts by {places['run']}"
        assert lines[2] == "from  abcabc" and lines[-1] == "to    gfedcb" and len(lines) == 15
    if name == "test texts":
        dataset = elbo_lab.load(places["run"]).dataset
        assert lines[2].split()[1] == dataset.text.decode(dataset.x_test[3:4])[0]
    if name == "measured":
        table = " ".join(out.split())
        for words in ("nats per character test the model", "distinct 3-grams test 3-gram model"):
            assert words in table
        stored = Path(out.split("kept in")[1].split()[0]) / "summary.json"
        rows = json.loads(stored.read_text())["results"]
        by_name = {(row["name"], row["symbol"]): row["value"] for row in rows}
        nats = by_name["nats per character", "the model"]
        assert nats == pytest.approx(-by_name["log-likelihood", "L_4"] / 6, rel=1e-6)
        # Fair dice: no model is much better than log 7.
        assert by_name["nats per character", "3-gram model"] == pytest.approx(np.log(7), abs=0.1)
        assert by_name["copied lines", "test texts"] < 0.1
    if name == "first texts":
        stored = Path(out.split("kept in")[1].split()[0]) / "summary.json"
        samples = json.loads(stored.read_text())["text"]["samples"]
        assert "rhymes, the first 3 of" in out
        assert [len(drawn) for drawn in samples.values()] == [3, 3]
    if name == "other texts":
        assert "more, 2 test examples" in out
    if name == "features":
        samples = (folder / "features" / "samples.txt").read_text().splitlines()
        assert {"learning_curves.png"} <= set(os.listdir(folder / "features" / "figures"))
        drawn = samples[samples.index("Reconstructions") + 2 :]
        assert all(set(line.split()[1]) <= set(VOCABULARY) for line in drawn)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_sentence(places, outputs, name):
    status, out, err = outputs[name]
    assert (status, out) == ("2", "")
    assert err == "Error: " + REFUSED[name][1].format(**places) + "\n"
