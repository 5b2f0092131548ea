"""Comparison of a sweep's cells: which ones compare, their differences, and the best one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from elbo_lab.configs import Config
from elbo_lab.evaluation import Evaluation, comparison
from elbo_lab.reports import results


class Measured(NamedTuple):
    """A cell with its values per test image."""

    config: Config
    entry: dict[str, Any]  # the cell's entry in sweep.json, with "results"
    values: dict[int, Evaluation]  # by seed; not empty

    @property
    def headline(self) -> dict[str, Any] | None:
        """The cell's result by which it is compared to others; None if there is none."""
        name = self.entry["headline"]
        return self.entry["results"][name] if name else None


def difference(own: Measured, baseline: Measured) -> dict[str, Any]:
    """The differences of a cell to the baseline, as sweep.json stores them.

    Returns:
      "headline" -> the difference of the headlines, and name -> the difference of every other
      quantity that is compared and that both cells have, as the fields of `comparison.Difference`.
      "reason" -> why the headlines are not compared, if they are not.
    """
    if own is baseline:
        return {"reason": "the baseline"}
    if reason := _reason_of_images(own, baseline):
        return {"reason": reason}
    headlines = own.entry["headline"], baseline.entry["headline"]
    # Key of the difference -> the quantity of each side.
    pairs = {name: (name, name) for name in _common(own, baseline) if name not in headlines}
    reason = _reason_of_headlines(own, baseline)
    if not reason:
        pairs["headline"] = headlines
    differences: dict[str, Any] = {}
    try:
        for key, (left, right) in pairs.items():
            differences[key] = comparison.difference(
                {seed: values[left] for seed, values in own.values.items()},
                {seed: values[right] for seed, values in baseline.values.items()},
            )._asdict()
    except ValueError as error:
        return {"reason": str(error)}
    if reason:
        differences["reason"] = reason
    return differences


def best(cells: Sequence[Measured]) -> str | None:
    """The name of the best cell by the headline.

    None if there is only one cell, if some cells do not compare, or if neither a higher nor a lower
    headline is better.
    """
    if len(cells) < 2:
        return None
    first = cells[0]
    if any(_reason_of_images(cell, first) or _reason_of_headlines(cell, first) for cell in cells):
        return None
    pick = {"higher": max, "lower": min}.get(first.headline["better"])
    if pick is None:
        return None
    return pick(cells, key=lambda cell: cell.headline["mean"]).entry["name"]


def _common(own: Measured, baseline: Measured) -> list[str]:
    """The compared quantities that both cells have, from the same number of draws."""
    of_baseline = baseline.entry["results"]
    return [
        name
        for name, result in own.entry["results"].items()
        if result["compared"]
        and name in of_baseline
        and result["draws"] == of_baseline[name]["draws"]
    ]


def _reason_of_headlines(own: Measured, baseline: Measured) -> str:
    """The reason why the headlines of two cells do not compare; "" if they do."""
    left, right = own.headline, baseline.headline
    if left is None or right is None:
        return "no quantity to compare by"
    if own.entry["headline"] == baseline.entry["headline"]:
        same_draws = left["draws"] == right["draws"]
        return "" if same_draws else "another eval_k: bounds of different K"
    if left["target"] is not None and left["target"] == right["target"]:
        return ""
    return f"another quantity: {left['symbol']}, not {right['symbol']}"


def _reason_of_images(own: Measured, baseline: Measured) -> str:
    """The reason why two cells' values are not log p of the same test images; "" if they are."""
    if results.is_conditional(own.config) != results.is_conditional(baseline.config):
        return "another condition: log p(x|y) and log p(x)"
    if _images_and_law(own.config) != _images_and_law(baseline.config):
        return "other test images or another likelihood"
    if own.config.test_draw == "by_seed" and set(own.values) != set(baseline.values):
        return "test images drawn by other seeds"
    return ""


def _images_and_law(config: Config) -> tuple[str | None, ...]:
    """A key that is equal for configs whose log p(x|.) can be compared image by image."""
    # Dynamic binarization draws the test images once, as fixed binarization does.
    mode = "fixed" if config.binarization == "dynamic" else config.binarization
    # Probability masses of the same images compare under any law; densities under the same one.
    law = config.model_options.likelihood if results.is_density(config) else None
    return config.dataset, mode, law, config.test_draw
