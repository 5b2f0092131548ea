"""What the study disentangle computes from its trained models: scores of the means of q(z|x)."""

import functools
from pathlib import Path
from typing import Any

from elbo_lab.runs import derived, disentangling
from elbo_lab.runs.disentangling import Scores


def of_cell(path: Path, cell: dict[str, Any]) -> list[Scores]:
    """The scores of each replicate of a cell of sweep.json; [] if it is not trained.

    Args:
      path: the sweep's folder.
      cell: of the content of its sweep.json.
    """
    if "results" not in cell:
        return []
    return list(_of_runs(tuple((path / run["run"], run["replicate"]) for run in cell["runs"])))


@functools.lru_cache(maxsize=64)  # The table and the figure share them.
def _of_runs(runs: tuple[tuple[Path, int], ...]) -> tuple[Scores, ...]:
    loaded = [derived.load_run(*run) for run in runs]
    return tuple(disentangling.scores(run, run.dataset, run.config.seed) for run in loaded)
