"""Gradient estimators compared at one point: signal-to-noise ratios, variance, bias, time.

    python -m experiments.gradients --objective=iwae --estimators=reparam,stl,dreg --k=1,4,16,64
    python -m experiments.gradients --run=runs/NAME --k=1,5,50 --num_gradients=500 --output=found

Without --run the gradients are a toy's, at parameters near its optimum. With --run they are those
of a trained model at its newest checkpoint (of the first replicate), for its first training images.
docs/gradients.md tells what is measured and how.
"""

import inspect
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

from elbo_lab import configs, data, files, keys, losses, methods, models, training
from elbo_lab.cli import folders, run_flags
from elbo_lab.cli.flag_values import define_optional_count
from elbo_lab.configs import Config
from elbo_lab.data import binarization
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.evaluation.gradients import gradient_study
from elbo_lab.evaluation.gradients.gradient_study import Study, Subject
from elbo_lab.models import toys
from elbo_lab.reports import gradients
from elbo_lab.runs import run_files, rundir, stages
from elbo_lab.runs.progress import Progress

TOY_EXAMPLES = 64
FILES = ("gradients.txt", "gradients.json")


def main() -> int:
    """Flags -> study and subject -> rows, cell by cell -> table, JSON, figures."""
    values = flags.FLAGS
    study = study_from_flags()
    cache_given = values["compilation_cache_dir"].present > 0
    setup.set_up(values.platform, 1, values.compilation_cache_dir, cache_given)
    named, subject = subject_from_flags()
    folder = None if values.output is None else folders.made("output", values.output)
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


def study_from_flags() -> Study:
    """What the command line asks for.

    Raises:
      UserError: a value that cannot be, or an estimator that does not go with the objective.
    """
    values = flags.FLAGS
    if values.objective not in gradient_study.OBJECTIVES:
        raise UserError(
            f"--objective must be one of {', '.join(gradient_study.OBJECTIVES)}, the functions of "
            f"log-weights with estimators; got {values.objective!r}."
        )
    able = losses.CATALOGUE[values.objective].estimators
    names = tuple(dict.fromkeys(values.estimators.split(",")))
    for name in names:
        if name not in able:
            raise UserError(
                f"--estimators must be of {', '.join(able)} for --objective={values.objective}; "
                f"got {name!r}."
            )
    ms, ks = counts("m"), counts("k")
    if ms != (1,) and "num_outer" not in options_of(values.objective):
        having = [o for o in gradient_study.OBJECTIVES if "num_outer" in options_of(o)]
        raise UserError(
            f"--m={values.m} does not go with --objective={values.objective}; objectives that have "
            f"it: {', '.join(having)}."
        )
    cells = tuple((m, k) for m in ms for k in ks)
    if not any(gradient_study.able(name, *cell) for name in names for cell in cells):
        raise UserError(
            f"--estimators={values.estimators} compare draws and need more than one; got "
            f"--k={values.k}. For one draw use reparam, stl, dreg or score."
        )
    number = values.num_gradients
    oracle = 4 * number if values.oracle_gradients is None else values.oracle_gradients
    return Study(values.objective, names, cells, number, oracle, values.seed)


def options_of(objective: str):
    """The arguments of an objective's function."""
    return inspect.signature(losses.OBJECTIVES[objective]).parameters


def counts(name: str) -> tuple[int, ...]:
    """ "1,4,16" as numbers, each once."""
    text = getattr(flags.FLAGS, name)
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise UserError(
            f"--{name} must be whole numbers of at least 1, separated by commas; got {text!r}."
        )
    return found


def subject_from_flags() -> tuple[str, Subject]:
    """Where gradients are taken, and its name."""
    values = flags.FLAGS
    if values.run is not None and values.toy is not None:
        raise UserError("--run and --toy name different models; give one of them.")
    if values.run is not None:
        folder = Path(values.run).expanduser()
        return run_subject(folder, values.batch_size, values.data_dir, values.manual_dir)
    name = values.toy or "gaussian"
    if name not in toys.TOYS:
        raise UserError(f"--toy must be one of {', '.join(toys.TOYS)}; got {name!r}.")
    toy = toys.TOYS[name](values.seed)
    size = batch_size(values.batch_size or TOY_EXAMPLES, len(toy.x))
    subject = Subject(toy.model, toy.params, jnp.asarray(toy.x[:size]), toy.groups, toy.inference)
    return f"the {name} toy", subject


def run_subject(
    path: Path, wanted: int | None, data_dir: str | None = None, manual_dir: str | None = None
) -> tuple[str, Subject]:
    """A trained run's model at its newest checkpoint, and its first training images.

    Args:
      path: the run's directory.
      wanted: images; a batch of the run if None.
      data_dir: see `data.load`.
      manual_dir: see `data.load`.

    Raises:
      UserError: no run, no checkpoint, or one made of other data or by another version.
    """
    try:
        stored = run_files.read_config(path)
    except UserError as error:
        raise UserError(f"--run={path} is not a run's directory ({error}).") from error
    try:
        config = configs.from_dict(stored["config"])
    except TypeError as error:
        raise UserError(f"--run={path} is not a run of this version ({error}).") from error
    folders.check(data_dir=data_dir, manual_dir=manual_dir)
    dataset = data.load(config.dataset, data_dir, manual_dir)
    if data.digest(dataset) != stored["data_sha256"]:
        raise UserError(f"--run={path}: the images of {config.dataset} have changed since.")
    dataset = data.hold_out(dataset, config.held_out)
    model = models.make(config, dataset.x_train.shape[1])
    params = trained_params(path, config, dataset)
    size = batch_size(wanted or config.batch_size, len(dataset.x_train))
    # What is drawn at every visit in training is drawn once here: noise is that of z alone.
    mode = "fixed" if config.binarization == "dynamic" else config.binarization
    images = stages.stored(dataset.x_train[:size], keys.TRAIN_SPLIT, mode)
    x = binarization.grey_levels(images)
    return str(path), Subject(model, params, x, lambda tree: tree, ("encoder",))


def trained_params(path: Path, config: Config, dataset: data.Dataset):
    """The parameters of the newest checkpoint; the first replicate's."""
    from elbo_lab.training import checkpoint, old_states

    base_keys = training.base_keys(training.replicas(config))
    number = len(dataset.x_train)
    method = methods.make(config, data.spec_of(dataset, config.binarization), number)
    loop = training.make_loop(config, method, number)
    like = jax.eval_shape(loop.init, base_keys, *stages.first_rows(dataset))
    old = old_states.state_like(like), base_keys
    restored = checkpoint.restore(path / rundir.CHECKPOINTS, (like, base_keys), others=[old])
    if restored is None:
        raise UserError(f"--run={path} has no checkpoint yet.")
    _, (state, _) = restored
    if config.replicates == 1:
        return state.params
    return jax.tree.map(lambda leaf: leaf[0], state.params)


def batch_size(wanted: int, number: int) -> int:
    """The number of examples, checked against what there is."""
    if wanted > number:
        raise UserError(f"--batch_size must be at most {number:,}, all examples; got {wanted}.")
    return wanted


def define() -> None:
    """The script's flags."""
    flags.DEFINE_string("objective", "iwae", f"of {', '.join(gradient_study.OBJECTIVES)}")
    flags.DEFINE_string("estimators", "reparam,stl,dreg", f"of {', '.join(losses.ESTIMATORS)}")
    flags.DEFINE_string("k", "1,4,16,64", "K, importance draws inside the bound; several")
    flags.DEFINE_string("m", "1", "M, outer repeats (miwae, piwae); several")
    flags.DEFINE_string("run", None, "a trained run's directory")
    flags.DEFINE_string("toy", None, f"of {', '.join(toys.TOYS)} (gaussian without --run)")
    flags.DEFINE_integer(
        "num_gradients",
        1000,
        "gradients of each estimator at each K and M; a quarter as many come before, as a pilot",
        lower_bound=20,
    )
    define_optional_count(
        "oracle_gradients",
        "gradients of the unbiased estimator that the others are compared with (four times "
        "--num_gradients if not given)",
        least=20,
    )
    define_optional_count(
        "batch_size",
        f"examples whose mean loss is differentiated (if not given, {TOY_EXAMPLES}, or the run's)",
        least=1,
    )
    flags.DEFINE_integer("seed", 0, "of the toy and of all draws", 0, 2**31 - 1)
    flags.DEFINE_string("output", None, "a folder for table, JSON and figures")
    for name in ("platform", "compilation_cache_dir", "data_dir", "manual_dir"):
        default, text = run_flags.RUN_DEFAULTS[name], run_flags.RUN_SECTION[name]
        flags.DEFINE_string(name, default, text)


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
