"""Scripts: `python -m experiments.NAME`. This file is imported before a script's own imports."""

from elbo_lab.cli import startup

startup.prepare()
