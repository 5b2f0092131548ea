"""Garbage collection during a script's imports and after them."""

import gc
import subprocess
import sys

from elbo_lab.cli import startup


def test_a_script_collects_garbage_once_its_imports_are_done():
    state = "import gc, experiments; print(gc.isenabled())"
    # `python -m` imports the package before its module: -m is sys.argv[0] at that moment.
    off = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = '-m'; {state}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert off.stdout == "False\n"
    gc.disable()
    try:
        startup.finish()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        frozen = gc.get_freeze_count()
        startup.finish()  # is on already: nothing is frozen any more
        assert gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()
        gc.enable()
