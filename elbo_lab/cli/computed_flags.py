"""Studies with a computation on the command line: the flags that they take, and their settings."""

import json
import shlex
import sys
from pathlib import Path

from absl import flags

from elbo_lab.cli import run_flags
from elbo_lab.cli.option_checks import check_count
from elbo_lab.cli.run_sections import RUN_DEFAULTS
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.studies import computed
from elbo_lab.studies.study import Study, Texts

# Flags of the script that do not depend on what is computed.
_TAKEN = ("workdir", "overwrite", "compilation_cache_dir", "platform")


def conduct(study: Study, script: str, settings: Texts, results_dir: Path | None) -> int:
    """Computes the study's answer, and reports it. Returns the exit status.

    Args:
      study: with a computation.
      script: the name in `python -m experiments.<script>`.
      settings: flag -> text, those of the study and those that are given.
      results_dir: a folder for the results; None: no such file.

    Raises:
      UserError: a flag that the study does not take, or a setting without an answer.
    """
    values = flags.FLAGS
    check_flags(study, settings)
    config = run_flags.config_of(settings)
    for name in study.settings:
        check_count(name, getattr(config, name), least=0)
    study.computation.check(config)
    if values.print_config:
        print(json.dumps(settings, indent=2))
        return 0
    cache_given = values["compilation_cache_dir"].present > 0
    setup.set_up(values.platform, 1, values.compilation_cache_dir, cache_given)
    command = shlex.join(["python", "-m", f"experiments.{script}", *sys.argv[1:]])
    workdir = values.workdir or computed.default_name(study, settings)
    computed.conduct(study, settings, config, command, workdir, values.overwrite, results_dir)
    return 0


def check_flags(study: Study, settings: Texts) -> None:
    """Raises a UserError for a given flag without an effect on what the study computes."""
    others = [name for name in settings if name not in study.settings]
    others += [
        name
        for name in (*RUN_DEFAULTS, "jobs")
        if name in flags.FLAGS and name not in _TAKEN and flags.FLAGS[name].present
    ]
    for name in others:
        taken = ", ".join(f"--{own}" for own in study.settings)
        raise UserError(
            f"--{name} has no effect in the study {study.name}, which trains nothing; it takes "
            f"{taken}."
        )
