"""Standard streams that fail, Ctrl-C during imports, and warnings as sentences."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PRINTING = """
import sys, warnings
from elbo_lab.errors import DamageWarning
from elbo_lab.cli import terminal
terminal.guard()
terminal.guard()
for number in range(2000):
    print("progress", number, file=sys.stderr)
for number in range(3):
    warnings.warn(f"file {number} is damaged", DamageWarning)
    text = f"'step_{number}': OSError: [Errno 28] No space left on device"
    warnings.warn(f"Error writing persistent compilation cache entry for {text}")
warnings.warn("another")
print("a line\\n" * 20_000)
with open(sys.argv[1], "w") as file:
    file.write("done")
sys.exit(terminal.status(0))
"""


def shell(redirection: str, path: Path) -> subprocess.CompletedProcess:
    # A file, not `python -c`: the package checks sys.argv[0].
    script = path.parent / "printing.py"
    script.write_text(PRINTING)
    command = f'"{sys.executable}" "{script}" "{path}" {redirection}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        ("", 0),
        ("2>&-", 0),
        ("2>/dev/full", 0),
        ("2> >(head -1)", 0),
        ("| head -1", 0),
        (">&-", 0),
        (">/dev/full", 1),
        (">/dev/full 2>&1", 1),
    ],
)
def test_no_stream_ends_a_program(tmp_path, redirection, status):
    done = shell(redirection, tmp_path / "file")
    assert done.returncode == status, done.stderr
    assert (tmp_path / "file").read_text() == "done"
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    if redirection == ">/dev/full":
        last = done.stderr.splitlines()[-1]
        assert last == "Error: standard output: No space left on device."


def test_warnings_of_damage_are_sentences_and_the_cache_warns_once(tmp_path):
    lines = shell("", tmp_path / "file").stderr.splitlines()
    shown = [line for line in lines if not line.startswith("progress")]
    assert shown[:4] == [
        "Warning: file 0 is damaged.",
        "Warning: compiled programs cannot be kept (No space left on device); the next start is "
        "slower.",
        "Warning: file 1 is damaged.",
        "Warning: file 2 is damaged.",
    ]
    assert "UserWarning: another" in shown[4]


@pytest.mark.parametrize("script", ["run", "sweep", "table1", "gradients", "benchmark"])
def test_ctrl_c_during_the_imports_prints_one_word(tmp_path, script):
    # Fake versions of the first libraries that a script imports; they interrupt the process.
    (tmp_path / "absl").mkdir()
    (tmp_path / "absl" / "__init__.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    (tmp_path / "jax.py").write_text((tmp_path / "absl" / "__init__.py").read_text())
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{script}"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
