"""Parameters of a trained run, at which a new run starts: `--init_from=RUN`."""

from typing import Any

import jax

from elbo_lab import methods
from elbo_lab.configs import Config
from elbo_lab.data import Dataset, Spec
from elbo_lab.errors import UserError
from elbo_lab.methods import Method
from elbo_lab.runs import examples, loading
from elbo_lab.training import optimizer

# The replicate whose parameters are taken, for all replicates of the new run.
REPLICATE = 0


def started(config: Config, method: Method, dataset: Dataset, spec: Spec) -> Method:
    """The method whose `init` gives the params and stats of the run `config.init_from`.

    They are those at which that run is evaluated, at its newest checkpoint. The optimizer starts
    anew. The two runs may differ in data, objective, estimator and optimizer.

    Args:
      config: of the new run.
      method: of the new run.
      dataset: of the new run, without what is held out.
      spec: of the data.

    Raises:
      UserError: there is no such run or no whole checkpoint, its replicate 0 diverged, or its
        params or stats have other names or shapes than the new run's.
    """
    path = config.init_from
    try:
        run = loading.read_config(path)
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
