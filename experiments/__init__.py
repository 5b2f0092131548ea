"""Scripts: `python -m experiments.NAME`. Python runs this file before the script's own imports."""

from elbo_lab.cli import startup

startup.prepare()
