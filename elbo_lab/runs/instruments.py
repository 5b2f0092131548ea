"""What evaluations share: their settings, and the form of measures that look at a whole split."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from elbo_lab.data import Dataset
from elbo_lab.evaluation import Evaluation
from elbo_lab.reports.tables import Result
from elbo_lab.runs.loading import Trained


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of an evaluation; None stands for the run's own value."""

    measures: tuple[str, ...] = ("quantities",)
    k: int | None = None
    eval_k: int | None = None
    seed: int | None = None  # of the draws
    dataset: str | None = None
    information_examples: int | None = None  # N of the measure `information`
    test_examples: int | None = None  # the first ones are evaluated; None: all

    def stored(self) -> dict[str, Any]:
        """The settings in summary.json and in the name of the evaluation's folder.

        A setting that is not given and came later is left out: older evaluations keep their names.
        """
        values = dataclasses.asdict(self)
        for name in ("information_examples", "test_examples"):
            if values[name] is None:
                del values[name]
        return values

    def number_of(self, available: int) -> int:
        """The number of test examples that are evaluated, of those of the data."""
        return available if self.test_examples is None else self.test_examples


class Outcome(NamedTuple):
    """What an instrument finds."""

    values: Evaluation  # of each test example, beside those measured batch by batch
    rows: list[Result]  # of the table, after those of the quantities
    summary: dict[str, Any]  # JSON-ready but for arrays


class Instrument(NamedTuple):
    """A measure of a stored run that pairs examples, or needs more than each test example."""

    check: Callable[[Trained, Settings, Dataset], None]
    """Refuses what has no answer, before anything is computed: a ValueError or a UserError."""

    measure: Callable[[Trained, Settings, Dataset, Evaluation, int], Outcome]
    """(run, settings, data, values of each test example, seed of draws) -> what is found."""

    figure: tuple[str, Callable[[dict[str, Any]], str]] | None = None
    """The name of a file and the function from the summary to its SVG."""
