"""Writes the conformance vectors beside this file: `python tests/conformance/make_vectors.py`.

Values, first derivatives v and path weights v - h (h the diagonal of the Hessian) of every bound,
by mpmath with 50 digits. v and h are analytic; the tests compare them with `numerical_derivatives`,
which differentiates the value by mpmath. Nothing here imports JAX or elbo_lab.

Log-weights of -inf stand for one shared number -t, those of +inf for one number t. Values and
derivatives are the limits as t goes to infinity; see README.md.
"""

import itertools
import json
import math
import pathlib

import mpmath
from mpmath import mpf

mpmath.mp.dps = 50
HERE = pathlib.Path(__file__).parent
ZERO_WEIGHT = -mpmath.inf
# Stand-in for a log-weight of +inf, so far above the others that derivatives are at their limit.
FAR_ABOVE = mpf(10) ** 12


def power_mean(log_w, s):
    """1/s log 1/K sum_k exp(s log_w_k), s != 0, its derivative and the diagonal of its Hessian."""
    p = softmax(log_w, s)
    h = [s * (p_k - p_k**2) for p_k in p]
    scaled = [s * log_w_k for log_w_k in log_w]
    top = max(scaled)
    if mpmath.isinf(top):
        return ZERO_WEIGHT, p, h
    # The sum over K written as 1 + mean of expm1: digits are kept where s is small.
    mean = mpmath.fsum(mpmath.expm1(scaled_k - top) for scaled_k in scaled) / len(log_w)
    return (top + mpmath.log1p(mean)) / s, p, h


def softmax(log_w, s):
    """exp(s log_w_k) / sum_j exp(s log_w_j); the limit where weights are zero."""
    if s == 0:
        return [1 / mpf(len(log_w))] * len(log_w)
    scaled = [s * log_w_k for log_w_k in log_w]
    top = max(scaled)
    if mpmath.isinf(top):  # The weights at the top are equal, and infinitely above all others.
        return [mpf(scaled_k == top) / scaled.count(top) for scaled_k in scaled]
    weights = [mpmath.exp(scaled_k - top) for scaled_k in scaled]
    total = mpmath.fsum(weights)
    return [weight / total for weight in weights]


def elbo(log_w):
    number = len(log_w)
    return mpmath.fsum(log_w) / number, [1 / mpf(number)] * number, [mpf(0)] * number


def iwae(log_w):
    return power_mean(log_w, mpf(1))


def miwae(log_w, num_outer):
    size = len(log_w) // num_outer
    parts = [iwae(log_w[m * size : (m + 1) * size]) for m in range(num_outer)]
    value = mpmath.fsum(part[0] for part in parts) / num_outer
    return value, *([x / num_outer for part in parts for x in part[i]] for i in (1, 2))


def ciwae(log_w, beta):
    beta = mpf(beta)
    return combine([(beta, elbo(log_w)), (1 - beta, iwae(log_w))])


def renyi(log_w, alpha):
    if math.isinf(alpha):
        best = max(log_w) if alpha < 0 else min(log_w)
        # Ties share the derivative.
        v = [mpf(log_w_k == best) / log_w.count(best) for log_w_k in log_w]
        return best, v, [mpf(0)] * len(log_w)
    s = 1 - mpf(alpha)
    return elbo(log_w) if s == 0 else power_mean(log_w, s)


def cubo(log_w, power):
    return power_mean(log_w, mpf(power))


def jackknife(log_w, order):
    """sum_j (-1)^j (K - j)^m / (j! (m - j)!) times the mean IWAE bound of subsets of K - j."""
    number = len(log_w)
    coefficients = {}
    for j in range(order + 1):
        coefficient = mpf((-1) ** j * (number - j) ** order) / math.comb(number, j)
        coefficient /= math.factorial(j) * math.factorial(order - j)
        subsets = itertools.combinations(range(number), number - j)
        coefficients |= dict.fromkeys(subsets, coefficient)
    return combine_subsets(log_w, coefficients)


def sumo(log_w, num_terms):
    """L_1 + sum_{k=1}^T k (L_{k+1} - L_k), L_k the IWAE bound of the first k: at most 80 terms."""
    terms = min(num_terms, len(log_w) - 1)
    # L_k is added by the term k - 1 (L_1 by itself) and subtracted by the term k.
    coefficients = {
        tuple(range(k)): mpf(max(k - 1, 1) - (k if k <= terms else 0)) for k in range(1, terms + 2)
    }
    return combine_subsets(log_w, coefficients)


def combine_subsets(log_w, coefficients):
    """sum of coefficient * IWAE bound, by the subset of draws."""
    value, slope = mpf(0), mpf(0)
    v, h = ([mpf(0)] * len(log_w) for _ in range(2))
    for kept, coefficient in coefficients.items():
        part, part_v, part_h = iwae([log_w[k] for k in kept])
        if part == ZERO_WEIGHT:  # log w = -t gives -t.
            slope += coefficient
        else:
            value += coefficient * part
        for k, v_k, h_k in zip(kept, part_v, part_h, strict=True):
            v[k] += coefficient * v_k
            h[k] += coefficient * h_k
    if abs(slope) > mpf(10) ** -30:
        value = -slope * mpmath.inf
    return value, v, h


def tvo(log_w, partition):
    """With p the softmax of b log_w, m = sum_k p_k log_w_k and g = dm / d log_w:
    g_k = p_k (1 + b (log_w_k - m)), and
    dg_k / d log_w_k = b p_k [(1 - p_k) (1 + b (log_w_k - m)) + 1 - g_k].
    """
    if isinstance(partition, int):
        partition = [mpf(s) / partition for s in range(partition + 1)]
    points = [mpf(b) for b in partition]
    parts = []
    for b, b_next in itertools.pairwise(points):
        if b == 0:
            parts.append((b_next, elbo(log_w)))
            continue
        all_zero = all(log_w_k == ZERO_WEIGHT for log_w_k in log_w)
        shifted = [mpf(0)] * len(log_w) if all_zero else log_w
        p = softmax(shifted, b)
        # A zero weight times its logarithm is zero.
        m = mpmath.fsum(p_k * x for p_k, x in zip(p, shifted, strict=True) if p_k)
        bracket = [1 + b * (x - m) if p_k else mpf(0) for p_k, x in zip(p, shifted, strict=True)]
        g = [p_k * c for p_k, c in zip(p, bracket, strict=True)]
        h = [b * p_k * ((1 - p_k) * c + 1 - g_k) for p_k, c, g_k in zip(p, bracket, g, strict=True)]
        parts.append((b_next - b, (ZERO_WEIGHT if all_zero else m, g, h)))
    return combine(parts)


def combine(parts):
    """sum of share * (value, v, h). Parts with a share of zero are dropped: 0 * inf is NaN."""
    parts = [(share, part) for share, part in parts if share]
    value = mpmath.fsum(share * part[0] for share, part in parts)
    columns = (zip(*(part[i] for _, part in parts), strict=True) for i in (1, 2))
    shares = [share for share, _ in parts]
    return value, *(
        [mpmath.fsum(a * b for a, b in zip(shares, entries, strict=True)) for entries in column]
        for column in columns
    )


# Orders within 1.2e-7 of the ELBO's, exact in float32.
NEAR_ONE = (1 - 2**-23, 1.0, 1 + 2**-23)

BOUNDS = {
    "elbo": (elbo, [{}]),
    "iwae": (iwae, [{}]),
    "miwae": (miwae, [{"num_outer": 2}, {"num_outer": 3}]),
    "ciwae": (ciwae, [{"beta": beta} for beta in (0.0, 0.25, 1.0)]),
    "renyi": (
        renyi,
        [{"alpha": alpha} for alpha in (-math.inf, -1.0, 0.0, 0.5, *NEAR_ONE, 2.0, 3.5, math.inf)],
    ),
    "cubo": (cubo, [{"power": power} for power in (1.0, 2.0, 4.5)]),
    "jackknife": (jackknife, [{"order": order} for order in (0, 1, 2)]),
    "sumo": (sumo, [{"num_terms": terms} for terms in (0, 1, 2, 9)]),
    "tvo": (tvo, [{"partition": p} for p in (1, 3, [0.0, 0.03125, 0.5, 1.0])]),
}

# Exact in float32 (and float64), so that no vector depends on how its input is rounded.
LOG_WEIGHTS = {
    "ordinary": [-90.25, -87.5, -93.125, -88.0, -95.75, -89.375],
    "near_zero": [0.25, -0.5, 0.0, 1.5, -1.25, 0.75],
    "nearly_equal": [-90.0, -90.0078125, -89.9921875, -90.0, -90.015625, -89.984375],
    "equal": [-87.5] * 6,
    "equal_zero": [0.0] * 6,
    "one_draw": [-90.25],
    "one_draw_high": [1e4],
    "far_below": [-90.0, -90.125, -110.5, -140.25, -89.75, -130.0],
    "one_dominates": [-1e4, -1e4, 0.0, -1e4, -9999.0, -1e4],
    "two_dominate": [-1e4, 0.5, 0.0, -1e4, -9999.0, -1e4],
    "huge_range": [1e4, 0.0, -1e4, 9998.5, -9999.5, 1.0],
    "all_high": [1e4, 10001.0, 9999.0, 1e4, 10000.5, 1e4],
    "all_low": [-1e4, -10001.0, -9999.0, -1e4, -10000.5, -1e4],
    "one_zero_weight": [0.0, -math.inf, 1.0, 2.0, -1.0, 0.5],
    "two_zero_weights": [-90.25, -math.inf, -87.5, -88.0, -95.75, -math.inf],
    "one_positive_weight": [-math.inf, -math.inf, -math.inf, -88.0, -math.inf, -math.inf],
    "two_positive_weights": [-math.inf, -math.inf, -90.25, -88.0, -math.inf, -math.inf],
    "a_group_of_zero_weights": [-math.inf, -math.inf, -math.inf, 0.0, 1.0, 2.0],
    "all_zero_weights": [-math.inf] * 6,
    "one_draw_zero_weight": [-math.inf],
    # Magnitudes and distances at the edge of the range that the bounds are made for.
    "edge": [1e6, -1e6, 0.0, 999999.5, -999999.0, 5.0],
    "edge_one_dominates": [0.25, 1.5, 1e6, -1.25, 0.75, -0.5],
    "edge_two_dominate": [-1e6, -999999.0, 2.0, 1.0, -1e6, -999998.5],
    "edge_first_zero_weight": [-math.inf, -1e6, 5.0, 0.0, 1e6, 3.0],
    "one_infinite_weight": [0.0, 0.25, math.inf, -1.0, 2.0, -90.0],
    "two_infinite_weights": [math.inf, 1.5, 0.25, math.inf, -1.0, 2.0],
}


def applies(parameters, number):
    """True if the bound is defined for `number` log-weights."""
    return number % parameters.get("num_outer", 1) == 0 and number > parameters.get("order", 0)


def vector(name, parameters, case):
    """One vector, as stored in the file."""
    log_w = [FAR_ABOVE if x == math.inf else mpf(x) for x in LOG_WEIGHTS[case]]
    value, v, h = BOUNDS[name][0](log_w, **parameters)
    if mpmath.isfinite(value) and abs(value) > FAR_ABOVE / 1000:
        value *= mpmath.inf
    return {
        "case": case,
        "parameters": plain(parameters),
        "log_weights": plain(LOG_WEIGHTS[case]),
        "value": plain(value),
        "derivative": plain(v),
        "path_weight": plain([v_k - h_k for v_k, h_k in zip(v, h, strict=True)]),
    }


def numerical_derivatives(name, parameters, log_w, k):
    """v_k and h_k of finite log-weights by mpmath's differentiation of the value alone."""

    def value(x):
        return BOUNDS[name][0]([*log_w[:k], x, *log_w[k + 1 :]], **parameters)[0]

    return tuple(mpmath.diff(value, log_w[k], order) for order in (1, 2))


def plain(x):
    """JSON form: finite numbers as the nearest float64, infinite ones as strings."""
    if isinstance(x, dict):
        return {key: plain(item) for key, item in x.items()}
    if isinstance(x, list):
        return [plain(item) for item in x]
    if isinstance(x, int):
        return x
    number = float(x) + 0.0  # No negative zeros.
    assert not math.isnan(number)
    return number if math.isfinite(number) else str(number)


def vectors(name):
    """All vectors of a bound."""
    return [
        vector(name, parameters, case)
        for parameters in BOUNDS[name][1]
        for case, log_w in LOG_WEIGHTS.items()
        if applies(parameters, len(log_w))
    ]


def main():
    for name in BOUNDS:
        lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in vectors(name))
        (HERE / f"{name}.json").write_text(f'{{"bound": "{name}", "vectors": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
