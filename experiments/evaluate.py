"""Evaluates stored runs again: with other draws, other K, other data, or other measures.

    python -m experiments.evaluate --run=runs/X --eval_k=50000 --seed=1

What is found lies beside the run, in its folder evaluations/, and is not computed twice.
"""

from absl import flags

from elbo_lab.cli import run_flags, stored_runs
from elbo_lab.cli.flag_values import define_optional_count
from elbo_lab.errors import UserError


def main() -> int:
    """Flags -> each run, loaded -> its evaluation -> a table. Returns the exit status."""
    values = flags.FLAGS
    stored_runs.set_up()
    from elbo_lab.runs import evaluating

    settings = evaluating.Settings(
        evaluating.checked_measures(values.measures),
        values.k,
        values.eval_k,
        values.seed,
        values.dataset,
    )
    dataset = None
    if values.dataset is not None:
        dataset = run_flags.load_data("dataset", values.dataset)
    for path in values.run or [None]:
        print("\n" + _evaluated(path, settings, dataset))
    return 0


def _evaluated(path: str | None, settings, dataset) -> str:
    from elbo_lab.runs import evaluating
    from elbo_lab.runs.progress import Progress

    trained = stored_runs.load(path, flags.FLAGS.replicate)
    progress = Progress("evaluation", len((dataset or trained.dataset).x_test), 0, "examples")
    try:
        return evaluating.evaluate(trained, settings, dataset, progress.to)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"--run={path}: {error}") from error
    finally:
        progress.close()


def define() -> None:
    """The script's flags."""
    flags.DEFINE_multi_string("run", [], "a run's directory; may be given several times")
    flags.DEFINE_list("measures", ["quantities"], "what is measured: quantities, squared_error")
    flags.DEFINE_integer("replicate", 0, "which of a run's replicates", lower_bound=0)
    define_optional_count("k", "K of the IWAE bound, if other than the run's", least=1)
    define_optional_count(
        "eval_k", "draws of the log-likelihood, if others than the run's", least=1
    )
    define_optional_count("seed", "of the draws, if other than the run's", least=0)
    flags.DEFINE_string("dataset", None, "data whose test examples are evaluated, if others")
    run_flags.define_run("platform", "compilation_cache_dir", "data_dir", "manual_dir")


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
