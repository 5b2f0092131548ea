"""All objectives in one list, which the flags' choices, the law tests and `docs/bounds.md` read.

To add one: write its function in the file of its kind, and its entry here.
"""

from collections.abc import Callable
from typing import NamedTuple

from elbo_lab.losses import aggregate, objectives, regularized, roulette, two_targets
from elbo_lab.losses.common import ANY_BOUND, FIXED_DRAWS, NOT_WAKE, WITHOUT_LOG_Q
from elbo_lab.losses.estimators import ESTIMATORS

LOG_WEIGHTS = "that are one function of log-weights"
PER_EXAMPLE = "with a regularizer per example"
WHOLE_BATCH = "that need the whole batch"
TWO_TARGETS = "of different targets for the two networks"


class Entry(NamedTuple):
    """What is to be known about an objective before it is chosen."""

    function: Callable
    kind: str  # one of the four above
    formula: str  # of the quantity that is maximized (minimized where upper), plain text
    population: str  # its direction towards log p(x), for unlimited draws
    finite: str  # and that of the K-draw estimate
    cost: str  # passes through the networks, and what comes on top
    paper: str
    estimators: tuple[str, ...]  # () where the objective has its own and takes none
    upper: bool = False  # whether the loss is plus the bound


CATALOGUE: dict[str, Entry] = {
    "elbo": Entry(
        objectives.elbo,
        LOG_WEIGHTS,
        "1/K sum_k log w_k, or 1/K sum_k log p(x|z_k) - KL(q(z|x) || p(z))",
        "lower bound, gap KL(q(z|x) || p(z|x))",
        "unbiased for it",
        "K",
        "Kingma and Welling 2014; textbook 13.4, 13.20, 13.27",
        ANY_BOUND,
    ),
    "beta_vae": Entry(
        objectives.beta_vae,
        LOG_WEIGHTS,
        "1/K sum_k log p(x|z_k) - beta KL(q(z|x) || p(z))",
        "lower bound for beta >= 1",
        "unbiased for it",
        "K",
        "Higgins et al. 2017",
        NOT_WAKE,
    ),
    "iwae": Entry(
        objectives.iwae,
        LOG_WEIGHTS,
        "log 1/K sum_k w_k",
        "log p(x) itself",
        "lower bound in expectation, rising with K",
        "K",
        "Burda et al. 2016; lecture notes, importance sampling",
        tuple(ESTIMATORS),
    ),
    "miwae": Entry(
        objectives.miwae,
        LOG_WEIGHTS,
        "1/M sum_m log 1/K sum_k w_mk",
        "log p(x) itself (in K)",
        "lower bound in expectation, the IWAE-K bound",
        "M K",
        "Rainforth et al. 2018",
        FIXED_DRAWS,
    ),
    "ciwae": Entry(
        objectives.ciwae,
        LOG_WEIGHTS,
        "beta/K sum_k log w_k + (1 - beta) log 1/K sum_k w_k",
        "lower bound, beta of the ELBO's gap",
        "lower bound in expectation, rising with K",
        "K",
        "Rainforth et al. 2018",
        ANY_BOUND,
    ),
    "renyi": Entry(
        objectives.renyi,
        LOG_WEIGHTS,
        "1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha)",
        "lower bound for alpha > 0, upper for alpha < 0",
        "biased downwards for alpha < 1, upwards for alpha > 1: of no direction for alpha < 0",
        "K",
        "Li and Turner 2016; VR-IWAE for alpha in [0, 1): Daudel et al. 2023",
        ANY_BOUND,
    ),
    "jackknife": Entry(
        objectives.jackknife,
        LOG_WEIGHTS,
        "sum_j c_j L_{K-j}, j = 0..m, c_j = (-1)^j (K - j)^m / (j! (m - j)!)",
        "log p(x) itself",
        "no direction, bias O(K^-(m+1))",
        "K; time of order K^m",
        "Nowozin 2018",
        ANY_BOUND,
    ),
    "tvo": Entry(
        objectives.tvo,
        LOG_WEIGHTS,
        "sum_s (b_{s+1} - b_s) sum_k softmax_k(b_s log w) log w_k",
        "lower bound, above the ELBO",
        "biased by O(1/K)",
        "K",
        "Masrani et al. 2019",
        ANY_BOUND,
    ),
    "sumo": Entry(
        roulette.sumo,
        LOG_WEIGHTS,
        "L_1 + sum_{k=1}^T (L_{k+1} - L_k) / P(T >= k), T drawn",
        "log p(x) itself",
        "unbiased for the IWAE-K bound, of large variance",
        "K",
        "Luo et al. 2020",
        FIXED_DRAWS,
    ),
    "capacity_vae": Entry(
        regularized.capacity_vae,
        PER_EXAMPLE,
        "1/K sum_k log p(x|z_k) - gamma |KL(q(z|x) || p(z)) - C|",
        "no bound (C = 0 is beta_vae)",
        "unbiased for it",
        "K",
        "Burgess et al. 2018",
        WITHOUT_LOG_Q,
    ),
    "free_bits": Entry(
        regularized.free_bits,
        PER_EXAMPLE,
        "1/K sum_k log p(x|z_k) - sum_g max(lambda, KL_g(x))",
        "lower bound, below the ELBO",
        "unbiased for it",
        "K",
        "after Kingma et al. 2016",
        WITHOUT_LOG_Q,
    ),
    "lambda_vae": Entry(
        regularized.lambda_vae,
        PER_EXAMPLE,
        "1/K sum_k -|x - mu_G(z_k)|^2 / 2 - lambda KL(q(z|x) || p(z))",
        "lambda (ELBO + D/2 log 2 pi lambda), p(x|z) of variance lambda",
        "unbiased for it",
        "K",
        "textbook 13.28",
        NOT_WAKE,
    ),
    "free_bits_batch": Entry(
        aggregate.free_bits_batch,
        WHOLE_BATCH,
        "1/K sum_k log p(x|z_k) - sum_g max(lambda, mean_x KL_g(x))",
        "lower bound on the batch's mean, below the ELBO",
        "unbiased for it, given the batch",
        "K",
        "Kingma et al. 2016",
        WITHOUT_LOG_Q,
    ),
    "beta_tcvae": Entry(
        aggregate.beta_tcvae,
        WHOLE_BATCH,
        "1/K sum_k log p(x|z_k) - I(x; z) - beta TC(z) - sum_l KL(q(z_l) || p(z_l))",
        "lower bound for beta >= 1",
        "q(z) from the batch: TC too large by up to L log N",
        "K, and K B^2 L densities",
        "Chen et al. 2018",
        ("reparam",),
    ),
    "dip_vae_i": Entry(
        aggregate.dip_vae_i,
        WHOLE_BATCH,
        "ELBO - lambda_off sum_{i!=j} C_ij^2 - lambda_diag sum_i (C_ii - 1)^2, C = Cov_x[E_q[z|x]]",
        "lower bound, below the ELBO",
        "penalty biased by O(1/B), to either side",
        "K, and an L x L covariance",
        "Kumar et al. 2018",
        WITHOUT_LOG_Q,
    ),
    "dip_vae_ii": Entry(
        aggregate.dip_vae_ii,
        WHOLE_BATCH,
        "as dip_vae_i, C = E_x[Var_q[z|x]] + Cov_x[E_q[z|x]]",
        "lower bound, below the ELBO",
        "penalty biased by O(1/B), to either side",
        "K, and an L x L covariance",
        "Kumar et al. 2018",
        WITHOUT_LOG_Q,
    ),
    "info_vae": Entry(
        aggregate.info_vae,
        WHOLE_BATCH,
        "1/K sum_k log p(x|z_k) - (1 - alpha) KL(q(z|x) || p(z)) - (alpha + lambda - 1) "
        "MMD^2(q(z), p(z))",
        "no bound",
        "unbiased for it",
        "K, and 3 B^2 kernels",
        "Zhao et al. 2019",
        ("reparam",),
    ),
    "cubo": Entry(
        two_targets.cubo,
        TWO_TARGETS,
        "q: 1/n log 1/K sum_k w_k^n (minimized); p: log 1/K sum_k w_k",
        "upper bound for n > 1",
        "biased downwards: below log p(x) at small K, where q runs away if trained by it",
        "K, two backward",
        "Dieng et al. 2017",
        NOT_WAKE,
        upper=True,
    ),
    "piwae": Entry(
        two_targets.piwae,
        TWO_TARGETS,
        "p: log 1/MK sum_mk w_mk; q: 1/M sum_m log 1/K sum_k w_mk",
        "log p(x) itself",
        "lower bound in expectation, the IWAE-MK bound",
        "M K, two backward",
        "Rainforth et al. 2018",
        FIXED_DRAWS,
    ),
    "iwae_elbo": Entry(
        two_targets.iwae_elbo,
        TWO_TARGETS,
        "p: log 1/K sum_k w_k; q: 1/K sum_k log w_k, that is -KL(q(z|x) || p(z|x))",
        "log p(x) itself",
        "lower bound in expectation, the IWAE-K bound",
        "K, two backward",
        "lecture notes, IWAE; textbook 13.11 to 13.15",
        ANY_BOUND,
    ),
    "rws": Entry(
        two_targets.rws,
        TWO_TARGETS,
        "p: log 1/K sum_k w_k; q: sum_k w_k log q(z_k|x), and/or log q of dreams",
        "log p(x) itself",
        "lower bound in expectation, the IWAE-K bound",
        "K, and a dream if asleep",
        "Bornschein and Bengio 2015",
        (),
    ),
    "wake_sleep": Entry(
        two_targets.wake_sleep,
        TWO_TARGETS,
        "p: 1/K sum_k log w_k; q: log q of dreams",
        "lower bound, the ELBO",
        "unbiased for it",
        "K, and a dream",
        "Hinton et al. 1995",
        (),
    ),
}

# The functions by the name that the flag takes.
OBJECTIVES: dict[str, Callable] = {name: entry.function for name, entry in CATALOGUE.items()}


class EstimatorNote(NamedTuple):
    """How an estimator weighs what, and when it may be used."""

    model_weight: str  # of the derivative by the parameters of prior and likelihood
    path_weight: str  # of d log w_k / dz through the draw z_k
    score_weight: str  # of d log q(z_k) / d phi
    bias: str  # for the gradient of the expected bound, where q's support does not move
    needs: str
    paper: str


ESTIMATOR_NOTES: dict[str, EstimatorNote] = {
    "reparam": EstimatorNote(
        "v",
        "v",
        "-v",
        "none",
        "draws with a derivative; the support of q may move",
        "Kingma and Welling 2014",
    ),
    "stl": EstimatorNote(
        "v",
        "v",
        "0",
        "biased but for bounds linear in log w (ELBO, beta-VAE; IWAE at K = 1)",
        "draws with a derivative, log q of a given z",
        "Roeder et al. 2017",
    ),
    "dreg": EstimatorNote(
        "v",
        "v - h",
        "0",
        "none",
        "draws with a derivative, log q of a given z, continuous df",
        "Tucker et al. 2019 (IWAE), here any f",
    ),
    "score": EstimatorNote(
        "v",
        "0",
        "f - baseline - v",
        "none",
        "no derivative of draws; a baseline of the caller's is welcome",
        "Williams 1992",
    ),
    "score_loo": EstimatorNote(
        "v",
        "0",
        "f - f(the others) - v",
        "none",
        "K >= 2, f defined for K - 1 draws",
        "Kool et al. 2019 (ELBO), here any f",
    ),
    "vimco": EstimatorNote(
        "v",
        "0",
        "f - f(log w_k replaced by the others' mean) - v",
        "none",
        "K >= 2",
        "Mnih and Rezende 2016",
    ),
    "ovis": EstimatorNote(
        "v",
        "0",
        "-log(1 - v) - v + gamma (v + log(1 - 1/K))",
        "none at gamma = 0 (the name's), biased at any gamma > 0",
        "K >= 2, the IWAE bound",
        "Lievin et al. 2020",
    ),
    "wake": EstimatorNote(
        "v",
        "0",
        "w",
        "follows no bound: -KL(p(z|x) || q(z|x)), biased by O(1/K)",
        "nothing",
        "Bornschein and Bengio 2015",
    ),
    "wake_dreg": EstimatorNote(
        "v",
        "w - w^2",
        "0",
        "the expectation of wake",
        "draws with a derivative, log q of a given z",
        "Tucker et al. 2019",
    ),
}
