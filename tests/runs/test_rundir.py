"""Run directories: which run they hold, and what overwriting removes."""

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.runs import rundir

DATA = "0123"
WRITTEN = ("summary.json", "evaluation.npz", "metrics.jsonl", "figures/a.png", "checkpoints/s/d")
DEFAULT = Config()


def claim(path, config: Config = DEFAULT, data: str = DATA, overwrite: bool = False) -> None:
    with rundir.claim(str(path), config, data, overwrite):
        pass


def refusal(path, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        claim(path, *args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fill(path: Path) -> None:
    """Writes the files of a finished run, and one of the user's own."""
    claim(path)
    for name in (*WRITTEN, "tensorboard/events", "notes.txt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("x")


def test_a_new_directory_is_made_with_its_parents_and_the_configuration(tmp_path):
    config = configs.make(k=7, latent_dims=(4, 2))
    with rundir.claim(str(tmp_path / "a" / "b"), config, DATA, False) as path:
        assert path == tmp_path / "a" / "b"
        stored = json.loads((path / "config.json").read_text())
    assert stored["config"] == json.loads(json.dumps(configs.all_values(config)))
    assert stored["data_sha256"] == DATA


def test_the_same_configuration_can_be_claimed_again_and_no_file_is_changed(tmp_path):
    fill(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    claim(tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_an_infinite_setting_is_stored_and_read_back(tmp_path):
    config = configs.make(objective="renyi", alpha=-math.inf)
    claim(tmp_path, config)
    claim(tmp_path, config)
    stored = json.loads((tmp_path / "config.json").read_text())["config"]
    assert configs.from_dict(stored) == config


def test_the_replicates_are_part_of_the_run(tmp_path):
    runs = [configs.make(objective="renyi", alpha=a, seed=s) for a in (0.5, -1.0) for s in (3, 4)]
    shared = configs.replace(runs[0], replicates=4)
    for _ in range(2):
        with rundir.claim(str(tmp_path), shared, DATA, False, runs):
            stored, digest = rundir.stored_replicas(tmp_path)
    assert [configs.from_dict(fields) for fields in stored] == runs
    assert digest == DATA
    with pytest.raises(UserError, match="the replicates"):
        with rundir.claim(str(tmp_path), shared, DATA, False, runs[::-1]):
            pass
    assert "the replicates" in refusal(tmp_path, shared)


def test_replicates_by_seed_are_read_back(tmp_path):
    claim(tmp_path, Config(seed=5, replicates=2))
    stored, _ = rundir.stored_replicas(tmp_path)
    assert [configs.from_dict(fields) for fields in stored] == [Config(seed=5), Config(seed=6)]
    assert rundir.stored_replicas(tmp_path / "nothing") == ([], "")


def test_a_removed_run_leaves_other_files(tmp_path):
    fill(tmp_path / "a")
    rundir.remove(tmp_path / "a")
    assert [p.name for p in (tmp_path / "a").iterdir() if p.name != ".lock"] == ["notes.txt"]
    claim(tmp_path / "b")
    rundir.remove(tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    claim("~/run")
    assert (tmp_path / "run" / "config.json").exists()


def test_completeness_is_the_summary(tmp_path):
    claim(tmp_path)
    assert not rundir.is_complete(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    assert rundir.is_complete(tmp_path)


def test_different_configurations_have_different_names():
    names = {rundir.default_name(Config(k=k, seed=s)) for k in (1, 5) for s in range(3)}
    assert len(names) == 6
    name = rundir.default_name(Config(dataset="/some/where/faces.npz"))
    assert name.startswith(os.path.join("runs", "iwae-k5-faces-"))


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "thesis.tex" in message
    assert "not empty" in message
    assert not (tmp_path / "config.json").exists()
    assert refusal(tmp_path, overwrite=True) == message
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_another_configuration_is_refused_with_the_differing_fields(tmp_path):
    claim(tmp_path, Config(k=5, learning_rate=0.001))
    message = refusal(tmp_path, Config(k=7, learning_rate=0.002))
    assert "k: 7 here, 5 there" in message
    assert "learning_rate: 0.002 here, 0.001 there" in message
    assert "seed" not in message
    assert "--overwrite" in message


def test_fields_that_only_one_side_has_are_listed(tmp_path):
    claim(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["config"]["seed"]
    stored["config"]["colour"] = "red"
    (tmp_path / "config.json").write_text(json.dumps(stored))
    message = refusal(tmp_path, Config(seed=3))
    assert "seed: 3 here, 0 there" in message  # a field that is not stored has its default
    assert "colour: (none) here, 'red' there" in message


def test_changed_data_are_refused(tmp_path):
    claim(tmp_path, Config(dataset="faces.npz"))
    message = refusal(tmp_path, Config(dataset="faces.npz"), data="4567")
    assert "the examples of faces.npz have changed" in message
    # The name alone is said of another data set: its examples did not change, nor was its run
    # trained again.
    message = refusal(tmp_path, Config(dataset="codes:runs/a"), data="4567-89")
    assert message.endswith("fields: dataset: 'codes:runs/a' here, 'faces.npz' there.")


@pytest.mark.parametrize("text", ["", "[1]", '{"config": 3}', "{", '{"model_type": "bert"}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_configuration_of_another_program_is_never_overwritten(tmp_path, text, overwrite):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"config\.json"):
        claim(tmp_path, overwrite=overwrite)
    assert (tmp_path / "config.json").read_text() == text
    assert (tmp_path / "checkpoints").exists()


def test_overwriting_removes_the_files_of_the_run_and_no_others(tmp_path):
    fill(tmp_path)
    claim(tmp_path, Config(k=9), overwrite=True)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left - {".lock"} == {"notes.txt", "config.json"}
    assert json.loads((tmp_path / "config.json").read_text())["config"]["k"] == 9


def test_overwriting_follows_no_link_out_of_the_directory(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    claim(tmp_path / "run")
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "elsewhere")
    claim(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "figures").exists()
    assert (tmp_path / "elsewhere" / "precious").read_text() == "x"


def test_files_of_a_process_killed_before_its_configuration_are_no_obstacle(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "config.json.tmp").write_text("{")
    claim(tmp_path)
    assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize("below", [".", "run", "run/deep"])
def test_a_path_below_a_regular_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / below
    message = refusal(path)
    assert f"--workdir={path} cannot be written" in message
    assert (tmp_path / "file").read_text() == "x"


def test_a_second_claim_is_refused_while_the_first_lasts(tmp_path):
    with rundir.claim(str(tmp_path), Config(), DATA, False):
        assert refusal(tmp_path) == f"--workdir={tmp_path} is in use by another process."
        assert "in use" in refusal(tmp_path, overwrite=True)
    claim(tmp_path)


def test_another_process_holds_the_directory_until_it_dies(tmp_path):
    script = f"""
        from elbo_lab.runs import rundir
        from elbo_lab.configs import Config
        with rundir.claim({str(tmp_path)!r}, Config(), {DATA!r}, False):
            print("claimed", flush=True)
            input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(rundir.__file__).parents[2],
    ) as process:
        assert process.stdout.readline() == b"claimed\n"
        assert "in use by another process" in refusal(tmp_path)
        process.kill()
    claim(tmp_path)
