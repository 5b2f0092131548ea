"""Interpolated n-gram models of tokens, by counts: what a model of texts has to be better than.

    p_1(c)    = (N(c) + a_1 / V) / (N + a_1)
    p_n(c|h)  = (N(h c) + a_n p_{n-1}(c|h')) / (N(h) + a_n)

with N(h c) the number of times that the token c follows the n - 1 tokens h in the training texts,
N(h) their sum over c, and h' the context h without its first token (MacKay and Peto 1995, the
predictive form of hierarchical Dirichlet laws). Before the first token of a text stands a mark that
is no token. All p_n are normalized.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

ORDER = 3
# The weights a_n that are tried.
_GRID = tuple(2.0**power for power in range(-2, 15))
_START = -1  # the mark before a text
# One part in so many of the training texts, the last ones, on which the weights are chosen.
_HELD_OUT = 10

# For contexts of one length: context -> token -> N(h c)
Followers = dict[tuple[int, ...], dict[int, int]]


class NGrams(NamedTuple):
    """An interpolated n-gram model, n the number of weights."""

    levels: int  # V
    weights: tuple[float, ...]  # a_1, ..., a_n
    followers: tuple[Followers, ...]  # for contexts of 0, ..., n - 1 tokens


def fit(x: np.ndarray, levels: int, order: int = ORDER) -> NGrams:
    """The model of training texts.

    Each weight, from a_1 up, is the one of a grid with the greatest likelihood of the last tenth of
    the texts under the counts of the others; then all texts are counted.

    Args:
      x: tokens, [N, T], N at least 2.
      levels: V.
      order: n.
    """
    held_out = max(1, len(x) // _HELD_OUT)
    counts, weights = _count(x[:-held_out], order), ()
    for n in range(1, order + 1):
        candidates = [NGrams(levels, (*weights, a), counts[:n]) for a in _GRID]
        scores = [np.sum(log_conditionals(m, x[-held_out:])) for m in candidates]
        weights = candidates[int(np.argmax(scores))].weights
    return NGrams(levels, weights, _count(x, order))


def log_conditionals(model: NGrams, x: np.ndarray) -> np.ndarray:
    """log p_n of each token of texts [N, T] given those before it, nats, [N, T], float64."""
    probability = np.full(x.shape, 1 / model.levels)
    for length, (weight, followers) in enumerate(zip(model.weights, model.followers, strict=True)):
        totals = {context: sum(counts.values()) for context, counts in followers.items()}
        count, total = np.zeros(x.shape), np.zeros(x.shape)  # N(h c) and N(h)
        for i, row in enumerate(_padded(x, length)):
            for t in range(x.shape[1]):
                context = tuple(row[t : t + length])
                if context in followers:
                    count[i, t] = followers[context].get(row[t + length], 0)
                    total[i, t] = totals[context]
        probability = (count + weight * probability) / (total + weight)
    return np.log(probability)


def next_token(model: NGrams, context: tuple[int, ...]) -> np.ndarray:
    """p_n of every token after a context, [V], which sums to one.

    Args:
      model: of order n.
      context: the n - 1 tokens before it, with the mark -1 before a text's start.
    """
    return _extended(model, context, np.full(model.levels, 1 / model.levels), 0)


def sample(model: NGrams, rng: np.random.Generator, number: int, length: int) -> np.ndarray:
    """Draws of texts, [number, length], int32."""
    before = len(model.weights) - 1
    uniform = np.full(model.levels, 1 / model.levels)
    unigram = _extended(model._replace(weights=model.weights[:1]), (), uniform, 0)
    x = np.full((number, before + length), _START, np.int32)
    for row in x:
        for t in range(before, before + length):
            context = tuple(row[t - before : t].tolist())
            cumulative = np.cumsum(_extended(model, context, unigram, 1))
            # The last sum may be rounded to less than one.
            row[t] = min(np.searchsorted(cumulative, rng.random()), model.levels - 1)
    return x[:, before:]


def _extended(
    model: NGrams, context: tuple[int, ...], probability: np.ndarray, start: int
) -> np.ndarray:
    """p_n of every token, [V], from p_start (p_0 is uniform)."""
    for length in range(start, len(model.weights)):
        weight = model.weights[length]
        probability = weight * probability
        counts = model.followers[length].get(context[len(context) - length :], {})
        probability[list(counts)] += list(counts.values())
        probability = probability / (weight + sum(counts.values()))
    return probability


def _padded(x: np.ndarray, length: int) -> list[list[int]]:
    """The rows with `length` marks before them."""
    return np.pad(x, ((0, 0), (length, 0)), constant_values=_START).tolist()


def _count(x: np.ndarray, order: int) -> tuple[Followers, ...]:
    all_followers = []
    for length in range(order):
        followers: Followers = defaultdict(lambda: defaultdict(int))
        for row in _padded(x, length):
            for t in range(x.shape[1]):
                followers[tuple(row[t : t + length])][row[t + length]] += 1
        all_followers.append({h: dict(counts) for h, counts in followers.items()})
    return tuple(all_followers)
