"""From values per example to reported numbers."""

import math
from typing import Any

import numpy as np

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.data import is_codes
from elbo_lab.data.dataset import Spec
from elbo_lab.evaluation import quantities
from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD, activity
from elbo_lab.evaluation.evaluator import Evaluation
from elbo_lab.evaluation.quantities import BITS, LOWER_BOUND, NATS, UPPER_BOUND
from elbo_lab.methods import codebook
from elbo_lab.models import conditions
from elbo_lab.models.laws import LIKELIHOODS
from elbo_lab.reports import words
from elbo_lab.reports.tables import Result
from elbo_lab.training.metrics import covered_steps

# Objectives that are lower bounds by the symbol of the bound; K is inside it.
_ELBO_OBJECTIVES = ("elbo", "wake_sleep")
_IWAE_OBJECTIVES = ("iwae", "miwae", "rws", "iwae_elbo")
# Lower bounds without a symbol. The other objectives are no bound at any setting, or none of a
# known direction at every K.
_NAMELESS_BOUNDS = ("ciwae", "free_bits", "free_bits_batch")
# Names of a classifier's results.
ACCURACY, LOG_PY, CALIBRATION = "accuracy", "log p(y|x)", "calibration error"


def test_results(config: Config, evaluation: Evaluation, spec: Spec | None = None) -> list[Result]:
    """The test split's numbers of one run, with standard errors over examples.

    Where p(x|z) is a density, the names of what depends on it end in ", density"; where the model
    is conditioned on labels, they say "given y" and their symbols have y; where the examples are
    codes, the symbols say so. Where p(x|z) is a mass of 256 levels, the log-likelihood is also
    given in bits per dimension, -log p / (D log 2): an upper bound in expectation if log p is a
    lower bound.

    Args:
      config: the run's; it names the bounds' numbers of draws.
      evaluation: values per test example.
      spec: of the data. Without it the examples are called images, and nothing is given in bits per
        dimension.

    Returns:
      The mean of each of `quantities.QUANTITIES` that was measured, active units per layer, and the
      use of the codebook.
    """
    settings, kind = configs.to_dict(config), "image" if spec is None else spec.kind
    results = []
    for name, measured in quantities.present(evaluation).items():
        quantity = quantities.described(measured, is_density(config), is_conditional(config))
        if is_codes(config.dataset):
            given_above = spec is not None and bool(spec.context)
            quantity = quantities.of_codes(quantity, given_above)
        results.append(
            _mean(
                quantity.title,
                quantities.symbol(quantity, settings),
                evaluation[name],
                words.for_kind(quantity.unit, kind),
                bound=quantity.direction,
                k=quantities.num_draws(quantity, settings),
                over=words.for_kind("images", kind),
            )
        )
    if kind == "image" and spec is not None and spec.levels == 256 and not is_density(config):
        results += _bits(evaluation, spec.dim, config)
    return results + active_units(evaluation) + code_use(evaluation, settings)


def classifier_results(name: str, measured: Evaluation, error: float, kind: str) -> list[Result]:
    """Accuracy, log-probability of the true class and calibration error of a classifier.

    Args:
      name: of the classifier, in the place of a symbol.
      measured: of `classification.per_example`.
      error: the expected calibration error.
      kind: of the data, for the nouns.
    """
    over = words.for_kind("images", kind)
    share, nats = words.for_kind("share of images", kind), words.for_kind(NATS, kind)
    return [
        _mean(ACCURACY, name, measured["accuracy"], share, bound=None, k=None, over=over),
        _mean(LOG_PY, name, measured["log_py"], nats, bound=None, k=None, over=over),
        Result(CALIBRATION, name, error, split="test"),
    ]


def character_results(
    log_px: dict[str, tuple[np.ndarray, str | None]], length: int
) -> list[Result]:
    """Nats per character, -log p(x) / T, of several models of texts.

    Args:
      log_px: name of the model, in the place of a symbol -> log p(x) of each test text, or a bound
        of it, [N], nats; and its direction.
      length: T, characters of a text.
    """
    return [
        _mean(
            "nats per character",
            name,
            -np.asarray(values, np.float64) / length,
            "nats per character",
            # The sign is turned.
            bound=UPPER_BOUND if direction == LOWER_BOUND else direction,
            k=None,
            over="examples",
        )
        for name, (values, direction) in log_px.items()
    ]


def copy_results(name: str, copied: np.ndarray, distinct: dict[int, float]) -> list[Result]:
    """Copied lines and distinct n-grams of texts.

    Args:
      name: of their source, in the place of a symbol.
      copied: the share of the lines of each text that stand in the training texts, [N].
      distinct: n -> number of different n-grams over the number of all of them.
    """
    share = "share of lines"
    rows = [_mean("copied lines", name, copied, share, bound=None, k=None, over="examples")]
    for n, value in distinct.items():
        rows.append(Result(f"distinct {n}-grams", name, value, split="test"))
    return rows


def from_json(rows: list[dict[str, Any]]) -> list[Result]:
    """The results that a summary's rows describe; null, which stands for NaN in JSON, is NaN."""
    results = [Result(**{name: row[name] for name in Result._fields}) for row in rows]
    return [r._replace(value=math.nan) if r.value is None else r for r in results]


def is_density(config: Config) -> bool:
    """True if log p(x|.) is that of a density; a family without laws to choose from has masses."""
    likelihood = configs.own_settings(config).get("likelihood")
    return likelihood is not None and LIKELIHOODS[likelihood].density


def is_conditional(config: Config) -> bool:
    """True if the model is conditioned on labels, so that log p(x|.) is log p(x|y, .)."""
    return conditions.is_conditional(config.model_options)


def _bits(evaluation: Evaluation, dim: int, config: Config) -> list[Result]:
    """The log-likelihoods in bits per dimension."""
    settings, results = configs.to_dict(config), []
    for name, measured in quantities.present(evaluation).items():
        quantity = quantities.described(measured, conditional=is_conditional(config))
        if name in quantities.IN_BITS:
            results.append(
                _mean(
                    BITS,
                    f"-{quantities.symbol(quantity, settings)} / D",
                    -evaluation[name].astype(np.float64) / (dim * math.log(2)),
                    BITS,
                    # The sign is turned.
                    bound=UPPER_BOUND if quantity.direction == LOWER_BOUND else quantity.direction,
                    k=quantities.num_draws(quantity, settings),
                )
            )
    return results


def code_use(evaluation: Evaluation, settings: dict[str, Any]) -> list[Result]:
    """Perplexity and use of each level's codebook over the split; [] for a method without codes."""
    single = [evaluation["codes"]] if "codes" in evaluation else []
    levels = single or quantities.numbered(evaluation, "codes_")
    results = []
    for i, codes in enumerate(levels):
        number = settings["num_codes"]
        perplexity, usage = map(float, codebook.codebook_use(codes, number))
        level = f", level {i + 1}" if len(levels) > 1 else ""
        results += [
            Result(
                f"perplexity of {number} codes{level}",
                "exp H",
                perplexity,
                unit="codes",
                split="test",
            ),
            Result(
                f"used codes of {number}{level}",
                "",
                round(usage * number),
                unit="codes",
                split="test",
            ),
        ]
    return results


def active_units(evaluation: Evaluation) -> list[Result]:
    """Numbers of active units of each layer, over training examples if those were measured."""
    split = "train" if quantities.layers(evaluation, "train") else "test"
    layers = quantities.layers(evaluation, split)
    results = []
    for i, means in enumerate(layers):
        layer = f", layer {i + 1}" if len(layers) > 1 else ""
        units = activity(means)
        active = float(np.sum(units > ACTIVE_THRESHOLD))
        name = f"active units{layer} of {units.size}"
        results.append(Result(name, "AU", active, unit="units", split=split))
    return results


def not_finite(evaluation: Evaluation, kind: str = "image") -> str:
    """A sentence that names the quantities which are not finite on some examples; "" if all are.

    Args:
      evaluation: values per test example.
      kind: of the data, for the noun.
    """
    counts = {
        name: int(np.sum(~np.isfinite(evaluation[name]))) for name in quantities.present(evaluation)
    }
    texts = [f"{name} on {count}" for name, count in counts.items() if count]
    noun = words.for_kind("images", kind)
    return f"not finite: {', '.join(texts)} test {noun}" if texts else ""


def train_result(
    config: Config,
    records: list[dict],
    first_step: int,
    replicate: int,
    steps_per_line: int | None = None,
    term: str = "bound",
    kind: str = "image",
) -> Result:
    """The training bound of one replicate: the mean over the steps of the lines of metrics that end
    after `first_step`; NaN if there are none.

    Args:
      config: the run's.
      records: of `metrics.read_metrics`.
      first_step: the last step that does not count.
      replicate: index of the replicate, in 0..R-1.
      steps_per_line: see `metrics.covered_steps`; all steps since the line before
        if not given.
      term: the term of the loss that is averaged.
      kind: of the data, for the unit.
    """
    value = _mean_after(records, first_step, replicate, steps_per_line, term)
    if term != "bound":
        title, unit = quantities.term(term, is_density(config), is_conditional(config))
        return Result(title, "", value, unit=words.for_kind(unit, kind), split="train")
    symbol, k = _bound_of(config)
    is_bound = symbol != "" or config.objective in _NAMELESS_BOUNDS
    title = "training bound" if is_bound else "training objective"
    title += quantities.GIVEN_Y if is_conditional(config) else ""
    return Result(
        title + (", density" if is_density(config) else ""),
        symbol,
        value,
        unit=words.for_kind(NATS, kind),
        bound=LOWER_BOUND if is_bound else None,
        k=k,
        split="train",
    )


def _mean_after(
    records: list[dict],
    first_step: int,
    replicate: int,
    steps_per_line: int | None,
    term: str,
) -> float:
    """The mean of a term over the steps of the lines that end after `first_step`."""
    late = [i for i, record in enumerate(records) if record["step"] > first_step]
    if not late:
        return math.nan
    # Steps of each line: the last one may cover fewer.
    steps = np.diff([0, *(record["step"] for record in records)])
    if steps_per_line is not None:
        covered = covered_steps(records, steps_per_line)
        steps = np.array([last - first + 1 for first, last in covered], int)
    values = [np.ravel(records[i][term])[replicate] for i in late]
    return float(np.average(values, weights=steps[late]))


def _bound_of(config: Config) -> tuple[str, int | None]:
    """Symbol and K of the bound that an objective maximizes; ("", None) if it has no symbol."""
    if config.objective in _ELBO_OBJECTIVES:
        return "ELBO", 1
    if config.objective in _IWAE_OBJECTIVES:
        return f"L_{config.k}", config.k
    if config.objective == "piwae":
        return f"L_{config.m * config.k}", config.m * config.k
    return "", None


def _mean(
    name: str,
    symbol: str,
    values: np.ndarray,
    unit: str,
    bound: str | None,
    k: int | None,
    over: str = "images",
) -> Result:
    """The mean of values per test example [N], with its standard error."""
    values = np.asarray(values, np.float64)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return Result(
        name,
        symbol,
        float(np.mean(values)),
        standard_error=error,
        over=over if error is not None else None,
        unit=unit,
        bound=bound,
        k=k,
        split="test",
        count=len(values),
    )
