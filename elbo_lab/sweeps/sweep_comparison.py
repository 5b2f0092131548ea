"""Which cells of a sweep compare, by how much they differ, and which one is best."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from elbo_lab.configs import Config
from elbo_lab.evaluation import Evaluation, comparison
from elbo_lab.reports import results


class Measured(NamedTuple):
    """A cell with its values per test image."""

    config: Config
    entry: dict[str, Any]  # in sweep.json, with "results"
    values: dict[int, Evaluation]  # by seed; not empty

    @property
    def headline(self) -> dict[str, Any] | None:
        """What sweep.json holds of the quantity that the cell is compared by, if there is one."""
        name = self.entry["headline"]
        return self.entry["results"][name] if name else None


def difference(own: Measured, baseline: Measured) -> dict[str, Any]:
    """What sweep.json holds of a cell minus the baseline.

    Returns:
      "headline" -> the difference of the headlines, and name -> that of every other compared
      quantity that both sides have, as the fields of `comparison.Difference`; "reason" -> why there
      is none of the headlines.
    """
    if own is baseline:
        return {"reason": "the baseline"}
    if reason := _other_images(own, baseline):
        return {"reason": reason}
    names = own.entry["headline"], baseline.entry["headline"]
    pairs = {name: (name, name) for name in _common(own, baseline) if name not in names}
    reason = _other_headline(own, baseline)
    if not reason:
        pairs["headline"] = names
    try:
        found: dict[str, Any] = {
            shown: comparison.difference(
                {seed: e[mine] for seed, e in own.values.items()},
                {seed: e[theirs] for seed, e in baseline.values.items()},
            )._asdict()
            for shown, (mine, theirs) in pairs.items()
        }
    except ValueError as error:
        return {"reason": str(error)}
    return found | ({"reason": reason} if reason else {})


def best(cells: Sequence[Measured]) -> str | None:
    """The name of the best cell by the headline; None where not all cells compare, or the headline
    is better neither higher nor lower.
    """
    if len(cells) < 2:
        return None
    first = cells[0]
    if any(_other_images(cell, first) or _other_headline(cell, first) for cell in cells):
        return None
    better = {"higher": max, "lower": min}.get(first.headline["better"])
    return better(cells, key=lambda cell: cell.headline["mean"]).entry["name"] if better else None


def _common(own: Measured, baseline: Measured) -> list[str]:
    """The compared quantities that both sides have, by as many draws."""
    other = baseline.entry["results"]
    return [
        name
        for name, found in own.entry["results"].items()
        if found["compared"] and name in other and found["draws"] == other[name]["draws"]
    ]


def _other_headline(own: Measured, baseline: Measured) -> str:
    """Why the headlines of two cells do not compare; "" if they do."""
    names = own.entry["headline"], baseline.entry["headline"]
    mine, theirs = own.headline, baseline.headline
    if mine is None or theirs is None:
        return "no quantity to compare by"
    if names[0] == names[1]:
        same = mine["draws"] == theirs["draws"]
        return "" if same else "another eval_k: bounds of different K"
    if mine["target"] is not None and mine["target"] == theirs["target"]:
        return ""
    return f"another quantity: {mine['symbol']}, not {theirs['symbol']}"


def _other_images(own: Measured, baseline: Measured) -> str:
    """Why two cells' values are not of the same test images; "" if they are."""
    if _images_and_law(own.config) != _images_and_law(baseline.config):
        return "other test images or another likelihood"
    if own.config.test_draw == "by_seed" and set(own.values) != set(baseline.values):
        return "test images drawn by other seeds"
    return ""


def _images_and_law(config: Config) -> tuple[str | None, ...]:
    """Equal for configs whose log p(x|.) compare image by image."""
    # Dynamic binarization draws the test images once, as fixed binarization does.
    mode = "fixed" if config.binarization == "dynamic" else config.binarization
    # Masses of the same images compare, whatever their law.
    law = config.model_options.likelihood if results.is_density(config) else None
    return config.dataset, mode, law, config.test_draw
