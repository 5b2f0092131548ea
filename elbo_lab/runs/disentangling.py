"""The measure `disentanglement` of a stored run: what single dimensions of its codes stand for."""

from typing import NamedTuple

import jax
import numpy as np

from elbo_lab.data import Batch, Dataset
from elbo_lab.errors import UserError
from elbo_lab.evaluation import Evaluation, disentanglement, scikit_learn
from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD, activity
from elbo_lab.reports.tables import Result
from elbo_lab.runs import derived, examples
from elbo_lab.runs.instruments import Instrument, Outcome, Settings
from elbo_lab.runs.loading import Trained

NAME = "disentanglement"
# Training examples of a larger split that are scored, as by Locatello et al. (2019).
MOST = 10_000
# Score -> its title and its symbol.
TITLES = {
    "mig": ("mutual information gap", "MIG"),
    "sap": ("separated attribute predictability", "SAP"),
    "dci_disentanglement": ("disentanglement", "DCI D"),
    "dci_completeness": ("completeness", "DCI C"),
    "dci_informativeness": ("informativeness", "DCI I"),
    "factor_vae": ("FactorVAE score", "FactorVAE"),
    "beta_vae": ("beta-VAE score", "beta-VAE"),
}


class Scores(NamedTuple):
    """Scores of the means of q(z|x), of the training examples; fits are judged on the test ones."""

    mig: float
    sap: float
    dci_disentanglement: float
    dci_completeness: float
    dci_informativeness: float
    factor_vae: float
    beta_vae: float
    active: float  # active units


def check(trained: Trained, settings: Settings, dataset: Dataset) -> None:
    """Refuses what has no score, before anything is computed.

    Raises:
      UserError: the factors of the data are unknown or other than the run's, codes are no vectors
        of at least two real numbers, or scikit-learn is not installed.
    """
    for own in (trained.dataset, dataset):
        if own.factors is None or not len(own.factors.test):
            raise UserError(
                f"--measures={NAME} needs data whose factors are known, --dataset=factors, "
                "factors64, dsprites, dSprites' file, or a set with features label_*, such as "
                f"shapes3d; got {own.name}."
            )
    names, own_names = dataset.factors.names, trained.dataset.factors.names
    if names != own_names:
        raise UserError(
            f"--dataset={settings.dataset} has the factors {', '.join(names)}; {trained.path} was "
            f"trained on images of {', '.join(own_names)}."
        )
    if _num_features(trained) < 2:
        raise UserError(
            f"--measures={NAME} needs codes of at least two real numbers; {trained.path} is a run "
            f"of {trained.config.model}."
        )
    scikit_learn.check_installed(f"--measures={NAME}")


def _num_features(trained: Trained) -> int:
    """L of the run's codes; 0 if it has none, or codes that are tokens."""
    method = trained.method
    if method.encode is None or method.code_specs:
        return 0
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    batch = jax.tree.map(lambda array: array[:1], test)
    return jax.eval_shape(method.encode, trained.params, trained.stats, batch).shape[-1]


def measure(
    trained: Trained, settings: Settings, dataset: Dataset, values: Evaluation, seed: int
) -> Outcome:
    """Scores of the run's codes, by the test examples of a data set."""
    del settings, values
    own = scores(trained, dataset, seed)
    rows = [
        Result(title, symbol, getattr(own, name), unit="in 0..1", split="train")
        for name, (title, symbol) in TITLES.items()
    ]
    return Outcome({}, rows, own._asdict())


def scores(trained: Trained, dataset: Dataset, seed: int) -> Scores:
    """The scores of a run.

    Args:
      trained: its training examples are scored, of more than `MOST` those that the seed draws.
      dataset: its test examples judge what is fitted.
      seed: of groups of examples and of forests.
    """
    config, spec = trained.config, trained.spec
    scored = _some_of_train(trained.dataset, seed)
    train = _means(trained, examples.all_of_train(config, scored, spec))
    test = _means(trained, examples.test_examples(config, dataset, spec))
    factors = scored.factors.train
    splits = (train, factors, test, dataset.factors.test)
    return Scores(
        disentanglement.mig(train, factors),
        disentanglement.sap(*splits),
        *disentanglement.dci(*splits, seed=seed),
        disentanglement.factor_vae(train, factors, seed),
        disentanglement.beta_vae(train, factors, seed),
        float(np.sum(activity(train) > ACTIVE_THRESHOLD)),
    )


def _some_of_train(dataset: Dataset, seed: int) -> Dataset:
    """The data set with at most `MOST` training examples."""
    number = len(dataset.x_train)
    if number <= MOST:
        return dataset
    rows = np.sort(np.random.default_rng(seed).choice(number, MOST, replace=False))
    return dataset._replace(
        x_train=dataset.x_train[rows],
        y_train=None if dataset.y_train is None else dataset.y_train[rows],
        factors=dataset.factors._replace(train=dataset.factors.train[rows]),
    )


def _means(trained: Trained, batch: Batch) -> np.ndarray:
    """Means of q(z|x), [N, L]."""
    return derived.encode_in_chunks(trained, batch).astype(np.float64)


INSTRUMENT = Instrument(check, measure)
