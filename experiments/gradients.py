"""Compares gradient estimators at fixed parameters: signal-to-noise ratio, variance, bias, time.

    python -m experiments.gradients --objective=iwae --estimators=reparam,stl,dreg --k=1,4,16,64
    python -m experiments.gradients --run=runs/NAME --k=1,5,50 --num_gradients=500 --output=out

Without --run the model is a toy, at parameters near its optimum. With --run it is the first
replicate of a trained run at its newest checkpoint, on the first of its training images.
docs/gradients.md describes what is measured and how.
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

TABLE, SUMMARY = "gradients.txt", "gradients.json"


def main() -> int:
    """Measures every cell; prints a table, and writes files. Returns the exit status."""
    values = flags.FLAGS
    study = gradient_flags.study_from_flags()
    cache_given = values["compilation_cache_dir"].present > 0
    setup.set_up(values.platform, 1, values.compilation_cache_dir, cache_given)
    title, subject = gradient_flags.subject_from_flags()
    folder = None if values.output is None else folders.create("output", values.output)
    try:
        gradient_study.check(study, subject)
    except ValueError as error:
        raise UserError(f"--objective={study.objective}: {error}") from error
    for m, k in study.cells:
        for name in study.estimators:
            if not gradient_study.has_enough_draws(name, m, k):
                print(f"{name} compares draws: left out at K = {k}.")
    rows = []
    progress = Progress("gradients", gradient_study.total_gradients(study), 0, "")

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
    text = gradients.table(title, study, subject, rows)
    print(text)
    if folder is not None:
        files.write_atomically(folder / TABLE, (text + "\n").encode())
        summary = gradients.summary(title, study, subject, rows)
        files.write_summary(folder / SUMMARY, summary)
        gradients.figures(folder, study, rows)
    return 0


if __name__ == "__main__":
    gradient_flags.define()
    run_flags.run(main, __doc__)
