"""What a script does before its own imports, which take seconds: it must import nothing large.

Ctrl-C ends a script in that time with a word, and not with a traceback of the imports;
`terminal.guard` takes over from there. A script also ends here, before it has computed anything,
where packages are not installed.
"""

import contextlib
import gc
import importlib.util
import os
import signal
import sys

# The modules that the packages in requirements.txt install.
LABORATORY = (
    *("jax", "jaxlib", "flax", "optax", "chex", "numpyro", "orbax", "grain", "absl", "numpy"),
    *("scipy", "matplotlib", "tqdm", "tensorflow_datasets", "psutil", "requests"),
    *("importlib_resources", "PIL"),
)


def prepare() -> None:
    """Opens closed standard files, handles SIGINT and stops garbage collection, until `finish`.

    Only a process of `python -m experiments.NAME` is changed, not a program that imports a script.
    """
    # sys.argv[0] is "-m" while `python -m` looks for its module.
    if sys.argv[0] == "-m":
        _open_standard_files()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupted)
        _check_installed()
        # Imports make hundreds of thousands of objects that stay. The collector would go through
        # all of them several times: a fifth of the imports' time.
        gc.disable()


def finish() -> None:
    """Turns garbage collection on again, for objects that are made from now on."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def interrupted(number: int, frame) -> None:
    """Ends the process; the handler of SIGINT during the imports."""
    del frame
    with contextlib.suppress(OSError):
        os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


def _open_standard_files() -> None:
    """Opens those of standard input, output and error that are closed: a file of ours would get
    their number, and what libraries print would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _check_installed() -> None:
    """Ends the process with one sentence and status 2 if a package is missing.

    Some are imported only after hours of training, so all are looked for, and none is imported.
    """
    missing = [name for name in LABORATORY if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"Error: the scripts need modules that are not installed ({', '.join(missing)}): get "
            'them by pip install "elbo_lab[lab]", or in a clone by pip install -e ".[lab]".',
            file=sys.stderr,
        )
        sys.exit(2)
