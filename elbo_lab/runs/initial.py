"""Parameters of a trained run, at which a new run starts: `--init_from=RUN`."""

from pathlib import Path
from typing import Any

import jax

from elbo_lab import data, methods
from elbo_lab.configs import Config
from elbo_lab.data import Dataset, Spec
from elbo_lab.errors import UserError
from elbo_lab.methods import Method
from elbo_lab.runs import examples, loading, rundir, text_records
from elbo_lab.training import optimizer

# The replicate whose parameters are taken, for all replicates of the new run.
REPLICATE = 0


def started(config: Config, method: Method, dataset: Dataset, spec: Spec) -> Method:
    """The method whose `init` gives the params and stats of the run `config.init_from`.

    They are those at which that run is evaluated, at its newest checkpoint. The optimizer starts
    anew. The two runs may differ in data, objective, estimator and optimizer; but tokens must mean
    the same: the characters of one vocabulary, or the codes of one run.

    Args:
      config: of the new run.
      method: of the new run.
      dataset: of the new run, without what is held out.
      spec: of the data.

    Raises:
      UserError: there is no such run or no whole checkpoint, its replicate 0 diverged, its tokens
        mean other things, or its params or stats have other names or shapes than the new run's.
    """
    path = config.init_from
    try:
        run = loading.read_config(path)
        _check_codes(path, run, dataset)
        _check_vocabulary(path, dataset)
        # Its own data need not be there: the spec of the new run's must give the same shapes.
        other = methods.make(run.config, spec, len(dataset.x_train))
        batch, mean = examples.first_rows(dataset)
        _check_shapes(config, _shapes(method, batch, mean), _shapes(other, batch, mean))
        stored = loading.read_state(path, run, dataset, spec, other)
    except (UserError, ValueError) as error:
        raise UserError(f"--init_from: {error}") from error
    start = optimizer.evaluation_params(run.config, stored.state), stored.state.stats
    failed_at = stored.state.failure.step
    if run.config.replicates > 1:
        start, failed_at = jax.tree.map(lambda leaf: leaf[REPLICATE], (start, failed_at))
    if failed_at >= 0:
        raise UserError(
            f"--init_from: replicate {REPLICATE} of {path} diverged at step {int(failed_at):,}; "
            "give a run whose first seed was trained to its end."
        )
    return method._replace(init=lambda key, batch, mean=None: start)


def _check_codes(path: str, run: loading.StoredRun, dataset: Dataset) -> None:
    """Raises a UserError if the data are codes, and the other run's are not of the same run."""
    if dataset.codes is not None and dataset.checkpoint != data.checkpoint_in(run.data_digest):
        raise UserError(
            f"{path} was trained on {run.config.dataset}, not on the codes of {dataset.name} as "
            "they are now; the codes of different runs do not compare."
        )


def _check_vocabulary(path: str, dataset: Dataset) -> None:
    """Raises a UserError if the data are texts, and the other run's are not of their characters."""
    if dataset.text is None or dataset.kind != "token":
        return
    if not (Path(path).expanduser() / rundir.TEXT).exists():
        raise UserError(f"{path} was trained on no texts, and {dataset.name} is one.")
    here, there = set(dataset.text.vocabulary), set(text_records.read(path).vocabulary)
    if here != there:
        character = min(here ^ there)
        where = "here" if character in here else "there"
        raise UserError(
            f"{path} was trained on texts of another vocabulary, {len(there):,} characters there "
            f"and {len(here):,} here ({character!r} only {where}); a token must mean the same "
            "character in both."
        )


def _shapes(method: Method, batch: Any, mean: Any) -> dict[str, str]:
    """The type and shape of each array of params and stats, by its path in them."""
    params, stats = jax.eval_shape(method.init, jax.random.key(0), batch, mean)
    flat, _ = jax.tree.flatten_with_path({"params": params, "stats": stats})
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in flat}


def _check_shapes(config: Config, here: dict[str, str], there: dict[str, str]) -> None:
    """Raises a UserError that names the first array that differs."""
    for name in here | there:
        if here.get(name) != there.get(name):
            raise UserError(
                f"{config.init_from} does not fit the model: {name} is {there.get(name, 'absent')} "
                f"there and {here.get(name, 'absent')} here."
            )
