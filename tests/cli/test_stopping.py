"""Runs that are killed, interrupted, damaged or out of space, and resume to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import wait_until

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]


def assert_goes_on_to_the_same(cli, read, fresh, path) -> None:
    done = cli.run(f"--workdir={path}")
    assert "iwae, k = 5" in done.stdout
    assert read["outcome"](path) == read["outcome"](fresh[0])
    assert not any(".saving" in p.name for p in (path / "checkpoints").iterdir())


def kill(cli, path, point: str) -> None:
    """Kills a run before it first opens or makes `point`."""
    done = cli.interrupted(point, signal.SIGKILL, f"--workdir={path}")
    assert done.returncode == -signal.SIGKILL
    assert not (path / "summary.json").exists()


@pytest.mark.parametrize(
    ("point", "records", "checkpoints"),
    [
        ("tensorboard", 0, []),  # the configuration is written
        ("step_00000024", 4, [12]),
        ("step_00000060", 10, [36, 48]),
        ("evaluation.npz.tmp", 20, [108, 120]),
        ("figures/", 20, [108, 120]),
    ],
    ids=["configuration", "first checkpoint", "training", "evaluation", "figures"],
)
def test_killed_at_any_point(cli, read, fresh, tmp_path, point, records, checkpoints):
    kill(cli, tmp_path, point)
    assert read["records"](tmp_path) == records
    folders = sorted(p.name for p in tmp_path.glob("checkpoints/*"))
    assert folders == [f"step_{step:08d}" for step in checkpoints]
    assert_goes_on_to_the_same(cli, read, fresh, tmp_path)


def test_killed_in_the_middle_of_saves(cli, read, fresh, tmp_path):
    for unfinished in ("step_00000024.saving", "step_00000084.saving.orbax-checkpoint-tmp"):
        kill(cli, tmp_path, f"{unfinished}/")
        assert (tmp_path / "checkpoints" / unfinished).exists()
    assert_goes_on_to_the_same(cli, read, fresh, tmp_path)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_saves_and_says_how_to_go_on(cli, read, fresh, tmp_path, number, status):
    # While step 36 is saved; the run stops after the next compiled call.
    done = cli.interrupted("step_00000036", number, f"--workdir={tmp_path}")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert f"Stopped at step 42 of {read['steps']}, saved." in last
    assert "same command goes on" in last
    assert (tmp_path / "checkpoints" / "step_00000042").exists()
    assert read["records"](tmp_path) == 7
    assert_goes_on_to_the_same(cli, read, fresh, tmp_path)


# A process that gets a signal after it has told the others that it has none. There are no others:
# `first_exchange` takes the place of what several processes do.
DURING_THE_EXCHANGE = """\
import os, signal
from elbo_lab.devices import distributed
from elbo_lab.runs.progress import Interrupt
interrupt = Interrupt()
def first_exchange(number):
    os.kill(os.getpid(), signal.SIGTERM)
    distributed.max_over_processes = int
    return number
distributed.max_over_processes = first_exchange
print(interrupt.agreed(), interrupt.agreed(), interrupt.agreed(), interrupt.status())
"""


def test_a_signal_during_the_exchange_of_signals_is_agreed_at_the_next():
    command = [sys.executable, "-c", DURING_THE_EXCHANGE]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "0 15 15 143\n", done.stderr


# A process in which Python never executes the next instruction, as with a program that never ends.
STUCK = """\
import hashlib, sys
from elbo_lab.runs.progress import Interrupt
interrupt = Interrupt(float(sys.argv[1]))
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.mark.parametrize(
    ("signals", "grace", "words"),
    [
        ((signal.SIGTERM, signal.SIGINT), 100, "within 100 s; a second signal stops at once"),
        ((signal.SIGTERM,), 0.5, "ended. The last checkpoint stays."),
        ((signal.SIGINT,), 0.5, "ended. The last checkpoint stays."),
    ],
    ids=["two signals", "TERM", "INT"],
)
def test_a_signal_ends_a_process_that_never_returns_to_python(signals, grace, words):
    command = [sys.executable, "-c", STUCK, str(grace)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=REPOSITORY, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signals[0])
        # The system may deliver two signals that wait in another order than they were sent in.
        assert process.stderr.readline() == "\n"
        err = process.stderr.readline()
        assert "Stopping at the next checkpoint" in err
        for number in signals[1:]:
            process.send_signal(number)
        err += process.communicate(timeout=30)[1]
    assert process.returncode == 128 + signals[-1]
    assert words in err


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(cli, read, fresh, tmp_path):
    kill(cli, tmp_path, "step_00000060")
    newest = tmp_path / "checkpoints" / "step_00000048"
    for file in (newest / "d").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    done = cli.run(f"--workdir={tmp_path}")
    assert "deleted the damaged checkpoint" in done.stderr
    assert newest.name in done.stderr
    assert read["outcome"](tmp_path) == read["outcome"](fresh[0])


def test_a_damaged_evaluation_is_made_again(cli, read, fresh, tmp_path):
    kill(cli, tmp_path, "figures/")
    (tmp_path / "evaluation.npz").write_bytes(b"PK\x03\x04 damaged")
    assert_goes_on_to_the_same(cli, read, fresh, tmp_path)


def test_overwriting_starts_anew_and_spares_other_files(cli, read, fresh, tmp_path):
    kill(cli, tmp_path, "step_00000036")
    (tmp_path / "notes.txt").write_text("mine")
    cli.run(f"--workdir={tmp_path}", "--overwrite")
    assert read["outcome"](tmp_path) == read["outcome"](fresh[0])
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_two_processes_do_not_share_a_directory(cli, read, tmp_path):
    flags = (f"--workdir={tmp_path}", "--epochs=100000")
    with cli.start(*flags) as first:
        wait_until(lambda: read["records"](tmp_path) >= 1, first)
        assert "in use by another process" in cli.refused(*flags)
        first.kill()
        first.communicate()


@pytest.mark.parametrize(
    ("size", "place"),
    [
        (100, "config.json"),
        (2_000, "checkpoints"),
        (30_000, "figures"),
    ],
)
def test_a_full_disk_is_one_sentence_and_no_harm(cli, read, fresh, tmp_path, size, place):
    flags = [f"--workdir={tmp_path}"]
    done = cli.run(*flags, status=2, largest_file=size)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == done.stderr.splitlines()[-1:], done.stderr
    assert place in errors[0], errors
    assert "File too large" in errors[0]
    assert done.stdout == ""
    if (tmp_path / "config.json").exists():
        assert json.loads((tmp_path / "config.json").read_text())
    assert_goes_on_to_the_same(cli, read, fresh, tmp_path)


# Files that are damaged or lost, and streams that fail


@pytest.fixture(scope="module")
def stopped(cli, read):
    """A run that was stopped in the middle."""
    path = cli.folder / "stopped"
    cli.interrupted("step_00000048", signal.SIGINT, f"--workdir={path}")
    return path


@pytest.mark.parametrize("damage", ["deleted", "half", "torn"])
def test_lost_metrics_are_reported_and_change_no_bit(cli, read, fresh, stopped, tmp_path, damage):
    path = tmp_path / "run"
    shutil.copytree(stopped, path)
    file = path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    steps, half = 6 * len(lines), len(lines) // 2
    if damage == "deleted":
        file.unlink()
        first, last = 1, steps
    elif damage == "half":
        file.write_bytes(b"".join(lines[half:]))
        first, last = 1, 6 * half
    else:
        file.write_bytes(b"".join(lines)[:-20])
        first, last = steps - 5, steps
    done = cli.run(f"--workdir={path}")
    warned = [line for line in done.stderr.splitlines() if line.startswith("Warning")]
    assert len(warned) == 1
    assert f"{file} has lost the lines of steps {first} to {last}: " in warned[0]
    outcome, expected = read["outcome"](path), read["outcome"](fresh[0])
    kept = [line for line in expected.pop("lines") if not first <= line["step"] <= last]
    assert outcome.pop("lines") == kept
    assert outcome == expected
    # The time of training includes the lost lines.
    summary = json.loads((path / "summary.json").read_text())
    seconds = next(r["value"] for r in summary["results"] if r["name"] == "wall time of training")
    assert seconds > json.loads(lines[-1])["seconds"]
    again = cli.run(f"--workdir={path}")
    assert "This run is complete" in again.stdout and again.stderr == ""


def test_a_damaged_configuration_is_restored(cli, read, fresh, stopped, tmp_path):
    for number, (source, is_complete) in enumerate([(fresh[0], True), (stopped, False)]):
        path = tmp_path / str(number)
        shutil.copytree(source, path)
        config = (path / "config.json").read_bytes()
        (path / "config.json").write_bytes(config[:100])
        done = cli.run(f"--workdir={path}")
        assert "config.json is not valid JSON" in done.stderr
        assert "; restored from a checkpoint." in done.stderr
        assert ("This run is complete" in done.stdout) == is_complete
        assert (path / "config.json").read_bytes() == config
        assert read["outcome"](path) == read["outcome"](fresh[0])


def test_lost_files_of_a_complete_run_are_made_again(cli, read, fresh, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(fresh[0], path)
    before = (path / "summary.json").read_bytes()
    shutil.rmtree(path / "figures")
    done = cli.run(f"--workdir={path}")
    assert "This run is complete" in done.stdout
    assert (path / "summary.json").read_bytes() == before
    for name in os.listdir(fresh[0] / "figures"):
        assert (path / "figures" / name).read_bytes() == (fresh[0] / "figures" / name).read_bytes()
    for name, text in {"evaluation.npz": "x", "summary.json": '{"failed_at": null}'}.items():
        (path / name).write_text(text)
        done = cli.run(f"--workdir={path}")
        assert f"{name} is damaged" in done.stderr and "training" not in done.stderr
        assert read["outcome"](path) == read["outcome"](fresh[0])
    # Without a checkpoint figures cannot be drawn again, but the numbers are printed.
    shutil.rmtree(path / "figures")
    shutil.rmtree(path / "checkpoints")
    done = cli.run(f"--workdir={path}")
    assert "cannot be drawn again without a checkpoint" in done.stderr
    assert "iwae, k = 5" in done.stdout and "training" not in done.stderr


@pytest.mark.parametrize("move", [True, False])
def test_a_directory_that_goes_away_ends_the_run_with_a_sentence(cli, read, tmp_path, move):
    path = tmp_path / "run"
    with cli.start(f"--workdir={path}", "--epochs=100000") as process:
        wait_until(lambda: read["records"](path) >= 5, process)
        path.rename(tmp_path / "moved")
        if not move:
            shutil.rmtree(tmp_path / "moved", ignore_errors=True)
        _, err = process.communicate()
    assert process.returncode == 2, err
    last = err.splitlines()[-1]
    assert last.startswith(f"Error: {path} was moved or removed while its run was writing there")
    assert not path.exists()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("failure", ["full", "gone"])
def test_no_stream_ends_a_run(cli, tmp_path, stream, failure):
    if failure == "full":
        file = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, file = os.pipe()
        os.close(reader)
    with cli.start(f"--workdir={tmp_path}", "--epochs=2", **{stream: file}) as process:
        os.close(file)
        _, err = process.communicate()
    # A full device is a failure; a closed pipe is not.
    assert process.returncode == ((stream, failure) == ("stdout", "full"))
    assert "Traceback" not in (err or "")
    assert (tmp_path / "summary.json").exists()


def test_help_that_could_not_be_printed_is_a_failure():
    command = [sys.executable, "-m", "experiments.run", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "Error: standard output: No space left on device.\n"


def test_a_run_without_standard_streams(cli, tmp_path):
    def close() -> None:
        for number in range(3):
            os.close(number)

    flags = (f"--workdir={tmp_path}", "--epochs=2")
    process = cli.start(*flags, stdout=None, stderr=None, preexec_fn=close)
    assert process.wait() == 0
    # No file of the run has the descriptor of a standard stream, to which libraries print.
    assert (tmp_path / ".lock").read_bytes() == b""
    assert (tmp_path / "summary.json").exists()
