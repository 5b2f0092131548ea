"""A process that runs many commands, one fork for each."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Imports what all scripts need once, and forks for each command.
FORKING = """\
import json, os, runpy, sys
import elbo_lab.runs.evaluating, elbo_lab.runs.reporting, elbo_lab.runs.sampling
import elbo_lab.runs.geometry
import elbo_lab.cli.gradient_flags, elbo_lab.runs.completing

folder, package = sys.argv[1:]
for name, (script, *arguments) in json.load(sys.stdin).items():
    process = os.fork()
    if not process:
        for number, stream in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{name}.{stream}", os.O_WRONLY | os.O_CREAT), number)
        sys.argv = [script, *arguments]
        runpy.run_module(f"{package}.{script}", run_name="__main__", alter_sys=True)
        os._exit(0)
    with open(f"{folder}/{name}.status", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])))
"""


def run_all(
    commands: dict[str, list[str]],
    folder: Path,
    environment: dict[str, str],
    package: str = "experiments",
) -> dict[str, tuple[str, str, str]]:
    """Runs commands in one process, which forks for each.

    Args:
      commands: name -> script and arguments.
      folder: for the output of the commands.
      environment: of the process.
      package: that of the scripts.

    Returns:
      Name -> exit status, standard output and standard error.
    """
    # JAX warns of forks, since its threads might be running; none has been started.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", FORKING, str(folder), package]
    options = {"text": True, "cwd": REPOSITORY, "env": environment, "check": True}
    subprocess.run(command, input=json.dumps(commands), **options)
    streams = ("status", "out", "err")
    return {n: tuple((folder / f"{n}.{s}").read_text() for s in streams) for n in commands}
