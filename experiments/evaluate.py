"""Evaluates stored runs again: with other draws, other K, other data, fewer examples, or
other measures.

    python -m experiments.evaluate --run=runs/X --eval_k=50000 --seed=1

Results are stored in the run's folder evaluations/, and are not computed twice.
"""

from absl import flags

from elbo_lab.cli import run_flags, stored_runs
from elbo_lab.cli.flag_values import define_optional_count, with_dashes
from elbo_lab.data import text_files
from elbo_lab.errors import UserError
from elbo_lab.evaluation.measures import MEASURES


def main() -> int:
    """Loads and evaluates each run, and prints a table of each. Returns the exit status."""
    values = flags.FLAGS
    stored_runs.set_up()
    from elbo_lab.runs import evaluating  # imported late: JAX is configured first

    settings = evaluating.Settings(
        measures=evaluating.checked_measures(values.measures),
        k=values.k,
        eval_k=values.eval_k,
        seed=values.seed,
        dataset=values.dataset,
        information_examples=values.information_examples,
        test_examples=values.test_examples,
    )
    dataset = None
    if values.dataset is not None and not text_files.is_path(values.dataset):
        dataset = run_flags.load_data("dataset", values.dataset)
    for path in values.run or [None]:
        print("\n" + _evaluated(path, settings, dataset))
    return 0


def _evaluated(path: str | None, settings, dataset) -> str:
    """The table of one run."""
    from elbo_lab.runs import evaluating
    from elbo_lab.runs.progress import Progress

    trained = stored_runs.load(path, flags.FLAGS.replicate)
    if settings.dataset is not None and text_files.is_path(settings.dataset):
        dataset = evaluating.texts(trained, settings.dataset)
    number = settings.number_of(len((dataset or trained.dataset).x_test))
    progress = Progress("evaluation", number, 0, "examples")
    try:
        return evaluating.evaluate(trained, settings, dataset, progress.to)
    except UserError:
        raise
    except ValueError as error:
        own = f"--run={path}, a run of --model={trained.config.model}"
        raise UserError(f"{own}: {with_dashes(str(error), 'measures')}") from error
    finally:
        progress.close()


def define() -> None:
    """Defines the script's flags."""
    measures_text = ", ".join(f"{name} ({measure.about})" for name, measure in MEASURES.items())
    flags.DEFINE_multi_string("run", [], "a run's directory")
    flags.DEFINE_list("measures", ["quantities"], f"one or more of {measures_text}")
    flags.DEFINE_integer("replicate", 0, "index of the run's replicate", lower_bound=0)
    define_optional_count("k", "K of the IWAE bound (if not given, the run's)", least=1)
    define_optional_count(
        "eval_k", "draws of the log-likelihood (if not given, the run's)", least=1
    )
    define_optional_count("seed", "seed of the draws (if not given, the run's)", least=0)
    define_optional_count(
        "information_examples",
        "N, examples of an aggregate posterior in the measure information (if not given, all "
        "test examples)",
        least=2,
    )
    define_optional_count(
        "test_examples", "the first N test examples are evaluated (if not given, all)", least=1
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "data set whose test examples are evaluated, or, of a run of texts, a .txt file, all of "
        "whose lines are (if not given, the run's)",
    )
    run_flags.define_run("platform", "compilation_cache_dir", "data_dir", "manual_dir")


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
