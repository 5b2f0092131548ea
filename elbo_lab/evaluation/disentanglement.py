"""How well single dimensions of a representation tell the factors of the data apart.

Codes c [N, L] are a representation of N examples, in this project the means of q(z|x), and factors
v [N, F] the values 0 .. n_f - 1 that the examples were made from. All scores lie between 0 and 1,
higher is better, and all are of a whole split. They do not measure the same: a score is compared
with the same score alone, computed by the same code.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from elbo_lab.evaluation import probes
from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD

# Bins of equal width of each code dimension, from its least to its greatest value.
BINS = 20
# Votes, and examples or pairs of each, of the scores by interventions.
VOTES, PER_VOTE = 800, 64
# Penalty and tolerance of the classifiers of one dimension and of pairs.
_L2, _TOLERANCE = 1e-3, 1e-4


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018)."""

    disentanglement: float  # each dimension serves one factor
    completeness: float  # each factor is served by one dimension
    informativeness: float  # accuracy of the factors predicted from the codes, test examples


def binned(codes: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Codes as the numbers 0 .. bins - 1 of bins of equal width, [N, L]; all 0 where constant."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    return np.minimum((bins * (codes - low) / width).astype(int), bins - 1)


def entropy(values: np.ndarray) -> float:
    """Entropy of the empirical law of integers [N] >= 0, nats."""
    p = np.bincount(values) / len(values)
    p = p[p > 0]
    return float(-np.sum(p * np.log(p)))


def mutual_information(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """I(c_l; v_f) of the empirical joint law of integers, [L, F], nats.

    It is biased upwards, by about (bins - 1)(n_f - 1) / 2N for independent ones.

    Args:
      codes: integers from 0, [N, L], see `binned`.
      factors: integers from 0, [N, F].
    """
    joint = [[entropy(_pairs(c, v)) for v in factors.T] for c in codes.T]
    of_code = np.array([entropy(c) for c in codes.T])
    of_factor = np.array([entropy(v) for v in factors.T])
    return np.maximum(of_code[:, None] + of_factor - np.array(joint), 0.0)


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs of integers from 0 as integers from 0."""
    return a * (int(b.max()) + 1) + b


def _mean_gap(scores: np.ndarray) -> np.ndarray:
    """Largest minus second largest score of each factor, from [L, F] with L > 1: [F]."""
    ordered = np.sort(scores, axis=0)
    return ordered[-1] - ordered[-2]


def mig(codes: np.ndarray, factors: np.ndarray, bins: int = BINS) -> float:
    """Mutual information gap (Chen et al. 2018, section 4):

        1/F sum_f (I(c_l; v_f) - max_{l' != l} I(c_l'; v_f)) / H(v_f),    l the best dimension of f

    The codes are binned, as by Locatello et al. (2019). The paper's own MIG integrates over q(z|x),
    and the two do not compare.

    Args:
      codes: [N, L], L > 1.
      factors: [N, F], each with at least two values.
      bins: of a code dimension.
    """
    information = mutual_information(binned(codes, bins), factors)
    return float(np.mean(_mean_gap(information) / [entropy(v) for v in factors.T]))


def sap(
    codes: np.ndarray, factors: np.ndarray, test_codes: np.ndarray, test_factors: np.ndarray
) -> float:
    """Separated attribute predictability (Kumar et al. 2018): the mean over factors of the best
    dimension's accuracy minus that of the second best.

    A classifier of a factor sees one dimension: multinomial logistic regression, whose classes are
    intervals. Its accuracy is on test examples.

    Args:
      codes, factors: [N, L] and [N, F], to fit.
      test_codes, test_factors: [N', L] and [N', F].
    """
    accuracy = np.empty((codes.shape[1], factors.shape[1]))
    for dim in range(codes.shape[1]):
        train, test = probes.scaled(codes[:, [dim]], test_codes[:, [dim]])
        for f, classes in enumerate(1 + factors.max(axis=0)):
            probe = probes.fit(train, factors[:, f], classes, _L2, _TOLERANCE)
            accuracy[dim, f] = probe.accuracy(test, test_factors[:, f])
    return float(np.mean(_mean_gap(accuracy)))


def dci_of_importance(importance: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness of importances R [L, F] >= 0.

        D = sum_l rho_l (1 - H(P_l) / log F),    P_l = R_l. / sum_f R_lf,  rho_l = sum_f R_lf / R..
        C = sum_f rho'_f (1 - H(P'_f) / log L)   likewise of the columns

    (Eastwood and Williams 2018, section 2; their C is the weighted mean of code 2.) A dimension or
    factor without importance has weight zero.
    """

    def weighted(rows: np.ndarray) -> float:
        total = rows.sum(axis=1)
        p = rows / np.where(total > 0, total, 1.0)[:, None]
        entropies = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1)
        weights = total / (total.sum() or 1.0)
        return float(np.sum(weights * (1 - entropies / np.log(rows.shape[1]))))

    return weighted(importance), weighted(importance.T)


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    test_codes: np.ndarray,
    test_factors: np.ndarray,
    seed: int = 0,
) -> DCI:
    """DCI by random forests of scikit-learn, whose importances are R.

    Args:
      codes, factors: [N, L] and [N, F], to fit; L and F > 1.
      test_codes, test_factors: [N', L] and [N', F].
      seed: of the forests.
    """
    from sklearn.ensemble import RandomForestClassifier

    importance, accuracy = [], []
    for f in range(factors.shape[1]):
        # Every split sees all dimensions: among few, a random one may serve no factor.
        forest = RandomForestClassifier(
            10, max_features=None, min_samples_leaf=5, random_state=seed, n_jobs=-1
        )
        forest.fit(codes, factors[:, f])
        # Threads would add up the trees' probabilities in any order, and so round them anew.
        forest.set_params(n_jobs=1)
        importance.append(forest.feature_importances_)
        accuracy.append(np.mean(forest.predict(test_codes) == test_factors[:, f]))
    disentanglement, completeness = dci_of_importance(np.stack(importance, axis=1))
    return DCI(disentanglement, completeness, float(np.mean(accuracy)))


def _groups(
    factors: np.ndarray, votes: int, size: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """A random factor and `size` random rows that share its value, `votes` times."""
    for f in rng.integers(factors.shape[1], size=votes):
        value = factors[rng.integers(len(factors)), f]
        yield f, rng.choice(np.flatnonzero(factors[:, f] == value), size)


def factor_vae(codes: np.ndarray, factors: np.ndarray, seed: int = 0, votes: int = VOTES) -> float:
    """FactorVAE score (Kim and Mnih 2018, section 4): the accuracy of a majority vote.

    A vote is a group of examples that share the value of one factor; it names the dimension whose
    variance in the group is the smallest share of its variance; only active dimensions are named,
    with a variance above 0.01. Half of the votes give every dimension the factor that it is named
    for most often, the others are classified by that. Chance is 1/F, which is the score of codes
    without an active dimension.

    Args:
      codes: [N, L].
      factors: [N, F].
      seed: of the groups.
      votes: their number, in all.
    """
    rng = np.random.default_rng(seed)
    variance = codes.var(axis=0)
    kept = np.flatnonzero(variance > ACTIVE_THRESHOLD)
    if len(kept) == 0:
        return 1 / factors.shape[1]
    named = np.array(
        [
            (kept[np.argmin(codes[rows][:, kept].var(axis=0) / variance[kept])], f)
            for f, rows in _groups(factors, votes, PER_VOTE, rng)
        ]
    )
    fitted, judged = named[: votes // 2], named[votes // 2 :]
    counts = np.zeros((codes.shape[1], factors.shape[1]), int)
    np.add.at(counts, tuple(fitted.T), 1)
    return float(np.mean(counts.argmax(axis=1)[judged[:, 0]] == judged[:, 1]))


def beta_vae(codes: np.ndarray, factors: np.ndarray, seed: int = 0, votes: int = VOTES) -> float:
    """Score of the beta-VAE paper (Higgins et al. 2017, section 3): the accuracy of a linear
    classifier that tells which factor the two examples of pairs share.

    Its input are `mean_differences`. Half of the groups of pairs fit it. Chance is 1/F.

    Args:
      codes: [N, L].
      factors: [N, F].
      seed: of the pairs.
      votes: number of groups, in all.
    """
    inputs, labels = mean_differences(codes, factors, seed, votes)
    half = votes // 2
    train, test = probes.scaled(inputs[:half], inputs[half:])
    probe = probes.fit(train, labels[:half], factors.shape[1], _L2, _TOLERANCE)
    return probe.accuracy(test, labels[half:])


def mean_differences(
    codes: np.ndarray, factors: np.ndarray, seed: int, votes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of |c - c'| over groups of PER_VOTE pairs of examples that share one factor.

    The two examples of a pair share its value, which differs between the pairs of a group.

    Args:
      codes: [N, L].
      factors: [N, F].
      seed: of the pairs.
      votes: number of groups.

    Returns:
      The means, [votes, L], and the factor that is shared, [votes].
    """
    rng = np.random.default_rng(seed)
    ordered = np.argsort(factors, axis=0, kind="stable")  # rows by the value of each factor
    counts = [np.bincount(values) for values in factors.T]
    shared, means = rng.integers(factors.shape[1], size=votes), []
    for f in shared:
        first = rng.integers(len(codes), size=PER_VOTE)
        value = factors[first, f]
        start = np.cumsum(counts[f]) - counts[f]
        second = ordered[start[value] + rng.integers(counts[f][value]), f]
        means.append(np.abs(codes[first] - codes[second]).mean(axis=0))
    return np.array(means), shared
