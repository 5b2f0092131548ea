"""The flags of experiments.gradients: what is measured, and at which model and parameters."""

import inspect
from pathlib import Path

import jax.numpy as jnp
from absl import flags

from elbo_lab import keys, losses, models
from elbo_lab.cli import run_sections, stored_runs
from elbo_lab.cli.flag_values import counts, define_optional_count
from elbo_lab.data import binarization
from elbo_lab.errors import UserError
from elbo_lab.evaluation.gradients import gradient_study
from elbo_lab.evaluation.gradients.gradient_study import Study, Subject
from elbo_lab.losses.estimators import DISCRETE_ESTIMATORS
from elbo_lab.models import toys
from elbo_lab.models.base import Model
from elbo_lab.runs import examples

TOY_EXAMPLES = 64
# Estimators of the studied models, whose latents are continuous.
ESTIMATORS = tuple(name for name in losses.ESTIMATORS if name not in DISCRETE_ESTIMATORS)


def study_from_flags() -> Study:
    """The study that the command line describes.

    Raises:
      UserError: an invalid value, or an estimator that does not go with the objective.
    """
    values = flags.FLAGS
    if values.objective not in gradient_study.OBJECTIVES:
        raise UserError(
            f"--objective must be one of {', '.join(gradient_study.OBJECTIVES)}, the functions of "
            f"log-weights with estimators; got {values.objective!r}."
        )
    estimators = tuple(dict.fromkeys(values.estimators.split(",")))
    of_objective = losses.CATALOGUE[values.objective].estimators
    supported = [name for name in ESTIMATORS if name in of_objective]
    for estimator in estimators:
        if estimator not in supported:
            raise UserError(
                f"--estimators must be one or more of {', '.join(supported)} for "
                f"--objective={values.objective}; got {estimator!r}."
            )
    ms, ks = counts("m", values.m), counts("k", values.k)
    if ms != (1,) and not _has_m(values.objective):
        with_m = [name for name in gradient_study.OBJECTIVES if _has_m(name)]
        raise UserError(
            f"--m={values.m} does not go with --objective={values.objective}; objectives that have "
            f"it: {', '.join(with_m)}."
        )
    cells = tuple((m, k) for m in ms for k in ks)
    if not any(
        gradient_study.has_enough_draws(name, m, k) for name in estimators for m, k in cells
    ):
        raise UserError(
            f"--estimators={values.estimators} compare draws and need more than one; got "
            f"--k={values.k}. For one draw use reparam, stl, dreg or score."
        )
    number = values.num_gradients
    oracle = 4 * number if values.oracle_gradients is None else values.oracle_gradients
    return Study(values.objective, estimators, cells, number, oracle, values.seed)


def _has_m(objective: str) -> bool:
    """Returns True if the objective takes M outer repeats."""
    return "num_outer" in inspect.signature(losses.OBJECTIVES[objective]).parameters


def subject_from_flags() -> tuple[str, Subject]:
    """A name for tables, and the model, parameters and examples at which gradients are taken.

    Raises:
      UserError: --run and --toy are both given, or one of them names nothing that exists.
    """
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
    """A trained run's model at its newest checkpoint, with its first training images.

    Args:
      path: the run's directory.
      wanted: number of images; the run's batch size if None.
      data_dir: see `data.load`.
      manual_dir: see `data.load`.

    Raises:
      UserError: there is no run or no checkpoint, the run was made from other data or by another
        version, or its model has no bound, discrete latents or labels.
    """
    trained = stored_runs.load_from(path, 0, data_dir, manual_dir)
    config, dataset = trained.config, trained.dataset
    model = models.make(config, trained.spec)
    if not isinstance(model, Model):
        raise UserError(
            f"--run={path} is a run of {config.model}, which has no bound to differentiate; give "
            f"one of a model with an objective."
        )
    if model.is_discrete:
        raise UserError(
            f"--run={path} is a run of {config.model}, whose latents are discrete: estimators are "
            "compared with dreg or reparam, which need draws with a derivative."
        )
    if model.classes is not None:
        raise UserError(
            f"--run={path} is a run with --condition=label; gradients are compared for models that "
            "are conditioned on nothing."
        )
    size = batch_size(wanted or config.batch_size, len(dataset.x_train))
    # Pixels are drawn once, so that z is the only noise in the gradients.
    mode = binarization.mode_for_kind(config.binarization, trained.spec.kind)
    mode = "fixed" if mode == "dynamic" else mode
    images = examples.stored(dataset.x_train[:size], keys.TRAIN_SPLIT, mode)
    x = binarization.model_input(images, trained.spec.kind)
    # A learned baseline has no part in the estimators that are compared.
    params = {name: part for name, part in trained.params.items() if name != "baseline"}
    return str(path), Subject(model, params, x, lambda tree: tree, ("encoder",))


def batch_size(wanted: int, number: int) -> int:
    """Returns `wanted` if that many of `number` examples exist; else raises a UserError."""
    if wanted > number:
        raise UserError(f"--batch_size must be at most {number:,}, all examples; got {wanted}.")
    return wanted


def define() -> None:
    """Defines the script's flags."""
    flags.DEFINE_string("objective", "iwae", f"one of {', '.join(gradient_study.OBJECTIVES)}")
    flags.DEFINE_string("estimators", "reparam,stl,dreg", f"one or more of {', '.join(ESTIMATORS)}")
    flags.DEFINE_string("k", "1,4,16,64", "K, importance draws inside the bound; one or several")
    flags.DEFINE_string("m", "1", "M, outer repeats (miwae, piwae); one or several")
    flags.DEFINE_string("run", None, "a trained run's directory")
    flags.DEFINE_string("toy", None, f"one of {', '.join(toys.TOYS)} (gaussian without --run)")
    flags.DEFINE_integer(
        "num_gradients",
        1000,
        "gradients of each estimator at each K and M, after a pilot of a quarter as many",
        lower_bound=20,
    )
    define_optional_count(
        "oracle_gradients",
        "gradients of the unbiased reference estimator (four times --num_gradients if not given)",
        least=20,
    )
    define_optional_count(
        "batch_size",
        f"examples whose mean loss is differentiated (if not given, {TOY_EXAMPLES}, or the run's)",
        least=1,
    )
    flags.DEFINE_integer("seed", 0, "seed of the toy and of all draws", 0, 2**31 - 1)
    flags.DEFINE_string("output", None, "a folder for table, JSON and figures")
    for name in ("platform", "compilation_cache_dir", "data_dir", "manual_dir"):
        default, text = run_sections.RUN_DEFAULTS[name], run_sections.RUN_SECTION[name]
        flags.DEFINE_string(name, default, text)
