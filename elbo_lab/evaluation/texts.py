"""Properties of generated texts: what they copy, and how varied they are."""

import numpy as np

# The lengths of the n-grams that are counted.
GRAMS = (1, 2, 3)


def lines_of(x: np.ndarray, line_length: int) -> np.ndarray:
    """The lines [N T / line_length, line_length] of texts [N, T], of which each has as many."""
    return np.ascontiguousarray(x).reshape(-1, line_length)


def copied_share(x: np.ndarray, x_train: np.ndarray, line_length: int) -> np.ndarray:
    """The share of the lines of each text that stand in the training texts, [N], float64.

    Args:
      x: tokens [N, T].
      x_train: tokens [N', T], of the same type.
      line_length: characters of a line; it divides T.
    """
    known = {line.tobytes() for line in lines_of(x_train, line_length)}
    is_known = [line.tobytes() in known for line in lines_of(x, line_length)]
    return np.reshape(is_known, (len(x), -1)).mean(axis=1)


def distinct_share(x: np.ndarray, line_length: int, n: int) -> float:
    """The number of different n-grams within lines over the number of all of them (distinct-n, Li
    et al. 2016). It falls as texts are added: compare equal numbers of them.

    Args:
      x: tokens [N, T].
      line_length: characters of a line, at least n; it divides T.
      n: tokens of a gram.
    """
    lines = lines_of(x, line_length)
    grams = np.lib.stride_tricks.sliding_window_view(lines, n, axis=1).reshape(-1, n)
    return len({gram.tobytes() for gram in grams}) / len(grams)
