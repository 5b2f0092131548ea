"""Answers a question by a grid of runs, or by a computation: table, figure and page.

    python -m experiments.study --list
    python -m experiments.study tighter_bounds
    python -m experiments.study ablate_protocol --manual_dir=mnist --budget=0.003

Flags of a configuration replace the settings that all cells of the study share; a flag in which the
cells differ is refused. Cells are trained, resumed and reported as by experiments.sweep: the same
command trains what is missing. A study with rungs, such as fast_protocol, trains its candidates by
successive halving: each rung is a sweep of its own.

    python -m experiments.study fast_protocol --manual_dir=mnist --results_dir=results

A study with a computation, such as likelihoods, trains nothing and takes no other flags of a
configuration than its own. It ends within minutes, and begins anew after a kill.

    python -m experiments.study likelihoods --k=100
"""

import textwrap

from absl import flags

from elbo_lab.cli import folders, run_flags, run_sections, study_flags, sweep_flags
from elbo_lab.errors import UserError
from elbo_lab.studies.registry import STUDIES
from elbo_lab.studies.study import Study


def main(name: str = "") -> int:
    """Runs the named study, or lists all studies. Returns the exit status."""
    if flags.FLAGS.list:
        for study in STUDIES.values():
            print(f"{study.name}\n{textwrap.indent(textwrap.fill(study.question, 90), '  ')}")
        return 0
    if name not in STUDIES:
        raise UserError(
            f"Give the name of a study, one of {', '.join(STUDIES)} (--list shows the questions); "
            f"got {name!r}."
        )
    study, results_dir = STUDIES[name], flags.FLAGS.results_dir
    if results_dir is None:
        return study_flags.conduct(study, "study")
    if not keeps_results(study):
        kept = ", ".join(name for name, study in STUDIES.items() if keeps_results(study))
        raise UserError(
            f"--results_dir is for studies whose results are kept ({kept}); got {name!r}."
        )
    folder = folders.create("results_dir", results_dir)
    return study_flags.conduct(study, "study", results_dir=folder)


def keeps_results(study: Study) -> bool:
    """True if the study writes small files of results."""
    return any((study.kept_in, study.halving, study.computation))


if __name__ == "__main__":
    run_flags.define(texts=True, without=run_sections.DISTRIBUTED)
    flags.DEFINE_string("results_dir", None, "folder of the results as small JSON files")
    flags.DEFINE_bool("list", False, "print the names and questions of all studies, and exit")
    sweep_flags.define_jobs()
    run_flags.run(main, __doc__, words=1)
