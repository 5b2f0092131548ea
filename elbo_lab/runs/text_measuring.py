"""The measure `text` of a stored run of texts: its log-likelihood by character, and its draws,
beside an n-gram model's.

Draws, copies and n-grams are of as many texts as the test split has, for the run, for an
interpolated n-gram model of the same training texts, and for the test texts themselves: only equal
numbers of texts compare.
"""

import numpy as np

from elbo_lab import keys
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError
from elbo_lab.evaluation import Evaluation, ngrams, quantities, texts
from elbo_lab.reports import results
from elbo_lab.runs import sampling
from elbo_lab.runs.instruments import Instrument, Outcome, Settings
from elbo_lab.runs.loading import Trained

NAME = "text"
# The names of the three in tables.
OWN, NGRAMS, TEST = "the model", f"{ngrams.ORDER}-gram model", "test texts"
# Quantities that are log p(x) or a bound of it, the first that was measured is taken.
_LOG_PX = ("log_px", "log_likelihood")


def check(trained: Trained, settings: Settings, dataset: Dataset) -> None:
    """Refuses a run that models no texts, before anything is computed.

    Raises:
      UserError: its examples are not texts, or it gives no samples.
    """
    del settings, dataset
    own = trained.dataset
    if own.text is None or own.kind != "token" or own.decode is not None:
        raise UserError(
            f"--measures={NAME} needs a run of texts; {trained.path} was trained on "
            f"{trained.config.dataset}."
        )
    if trained.method.sample is None:
        raise UserError(
            f"--measures={NAME} draws texts; {trained.path} is a run of {trained.config.model}, "
            "which gives no samples."
        )


def measure(
    trained: Trained, settings: Settings, dataset: Dataset, values: Evaluation, seed: int
) -> Outcome:
    """Rows of a table about the run, the n-gram model and the test texts, and what they rest on.

    Args:
      trained: a run of texts.
      settings: of the evaluation; not read.
      dataset: its test examples are measured.
      values: of the measure `quantities` over the test examples.
      seed: of the draws of the run and of the n-gram model.

    Returns:
      The rows; and "weights", those of the n-gram model, and "samples", draws of both by name.
    """
    del settings
    key = keys.stream_key(keys.base_key(seed), keys.SAMPLES)
    text, x_train, x_test = dataset.text, trained.dataset.x_train, dataset.x_test
    number = len(x_test)
    model = ngrams.fit(x_train, trained.spec.levels)
    drawn = {
        OWN: np.asarray(sampling.sample(trained, key, number), x_test.dtype),
        NGRAMS: ngrams.sample(model, np.random.default_rng(seed), number, text.length),
        TEST: x_test,
    }
    name = next((name for name in _LOG_PX if name in values), None)
    log_px = {NGRAMS: (np.sum(ngrams.log_conditionals(model, x_test), axis=1), quantities.EXACT)}
    if name is not None:
        log_px = {OWN: (values[name], quantities.QUANTITIES[name].direction)} | log_px
    rows = results.character_results(log_px, text.length)
    for source, x in drawn.items():
        rows += results.copy_results(
            source,
            texts.copied_share(x, x_train, text.line_length),
            {
                n: texts.distinct_share(x, text.line_length, n)
                for n in texts.GRAMS
                if n <= text.line_length
            },
        )
    samples = {source: text.decode(drawn[source]) for source in (OWN, NGRAMS)}
    return Outcome({}, rows, {"weights": model.weights, "samples": samples})


INSTRUMENT = Instrument(check, measure)
