"""Gradient estimators compared at one point: signal-to-noise ratios, variance, bias, time.

    python -m experiments.gradients --objective=iwae --estimators=reparam,stl,dreg --k=1,4,16,64
    python -m experiments.gradients --run=runs/NAME --k=1,5,50 --num_gradients=500 --output=found

Without --run the gradients are a toy's, at parameters near its optimum. With --run they are those
of a trained model at its newest checkpoint (of the first replicate), for its first training images.
docs/gradients.md tells what is measured and how.
"""

import sys

from absl import flags

from elbo_lab import files
from elbo_lab.cli import folders, gradient_flags, run_flags
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.evaluation.gradients import gradient_study
from elbo_lab.reports import gradients
from elbo_lab.runs.progress import Progress

FILES = ("gradients.txt", "gradients.json")


def main() -> int:
    """Flags -> study and subject -> rows, cell by cell -> table, JSON, figures."""
    values = flags.FLAGS
    study = gradient_flags.study_from_flags()
    cache_given = values["compilation_cache_dir"].present > 0
    setup.set_up(values.platform, 1, values.compilation_cache_dir, cache_given)
    named, subject = gradient_flags.subject_from_flags()
    folder = None if values.output is None else folders.create("output", values.output)
    try:
        gradient_study.check(study, subject)
    except ValueError as error:
        raise UserError(f"--objective={study.objective}: {error}") from error
    for m, k in study.cells:
        for name in study.estimators:
            if not gradient_study.able(name, m, k):
                print(f"{name} compares draws: left out at K = {k}.")
    progress, rows = Progress("gradients", gradient_study.total_gradients(study), 0, ""), []

    def on_gradients(more: int) -> None:
        progress.to(progress.done + more)

    try:
        for cell in gradient_study.measure(study, subject, on_gradients):
            rows += cell
    except ArithmeticError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    finally:
        progress.close()
    text = gradients.table(named, study, subject, rows)
    print(text)
    if folder is not None:
        files.write_atomically(folder / FILES[0], (text + "\n").encode())
        summary = gradients.summary(named, study, subject, rows)
        files.write_summary(folder / FILES[1], summary)
        gradients.figures(folder, study, rows)
    return 0


if __name__ == "__main__":
    gradient_flags.define()
    run_flags.run(main, __doc__)
