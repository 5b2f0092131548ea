"""The list of all objectives, read by the flags, the law tests and the tables of `docs/bounds.md`.

To add an objective, write its function in the file of its kind, and its entry here.
"""

from collections.abc import Callable
from typing import NamedTuple

from elbo_lab.losses import aggregate, objectives, regularized, roulette, two_targets
from elbo_lab.losses.common import (
    ANY_BOUND,
    FIXED_DRAWS,
    FOR_IWAE,
    FOR_MEAN,
    NOT_WAKE,
    WEIGHTED_MEAN,
    WITHOUT_LOG_Q,
)

LOG_WEIGHTS = "that are one function of log-weights"
PER_EXAMPLE = "with a regularizer per example"
WHOLE_BATCH = "that need the whole batch"
TWO_TARGETS = "with different targets for the two networks"

# Objectives that take the KL in closed form, whatever their settings.
CLOSED_KL = ("capacity_vae",)
# Objectives whose KL from draws (kl="mc") is differentiated by reparam alone.
KL_BY_DRAWS = ("free_bits", "free_bits_batch", "dip_vae_i", "dip_vae_ii", "info_vae")
# Objectives that take q(z|x) apart into independent dimensions, whatever their settings.
INDEPENDENT = ("beta_tcvae", "dip_vae_ii")
# Objectives that do so for a closed-form KL of each group of dimensions.
GROUPED = ("free_bits", "free_bits_batch")
# Objectives that take the mean of q(z|x) in closed form.
MOMENTS = ("dip_vae_i", "dip_vae_ii")


class Entry(NamedTuple):
    """Description of an objective, for its users."""

    function: Callable
    kind: str  # one of the four above
    formula: str  # of the quantity that is maximized (minimized where upper), plain text
    population: str  # direction of the bound on log p(x) with unlimited draws
    finite: str  # bias or direction of the estimate from K draws
    cost: str  # draws per example, and further costs
    paper: str
    estimators: tuple[str, ...]  # (): the objective takes no estimator
    upper: bool = False  # True: the loss is plus the bound


CATALOGUE: dict[str, Entry] = {
    "elbo": Entry(
        function=objectives.elbo,
        kind=LOG_WEIGHTS,
        formula="1/K sum_k log w_k, or 1/K sum_k log p(x|z_k) - KL(q(z|x) || p(z))",
        population="lower bound, gap KL(q(z|x) || p(z|x))",
        finite="unbiased for it",
        cost="K",
        paper="Kingma and Welling 2014; textbook 13.4, 13.20, 13.27",
        estimators=FOR_MEAN,
    ),
    "beta_vae": Entry(
        function=objectives.beta_vae,
        kind=LOG_WEIGHTS,
        formula="1/K sum_k log p(x|z_k) - beta KL(q(z|x) || p(z))",
        population="lower bound for beta >= 1",
        finite="unbiased for it",
        cost="K",
        paper="Higgins et al. 2017",
        estimators=WEIGHTED_MEAN,
    ),
    "iwae": Entry(
        function=objectives.iwae,
        kind=LOG_WEIGHTS,
        formula="log 1/K sum_k w_k",
        population="log p(x) itself",
        finite="lower bound in expectation, rising with K",
        cost="K",
        paper="Burda et al. 2016; lecture notes, importance sampling",
        estimators=FOR_IWAE,
    ),
    "miwae": Entry(
        function=objectives.miwae,
        kind=LOG_WEIGHTS,
        formula="1/M sum_m log 1/K sum_k w_mk",
        population="log p(x) itself (in K)",
        finite="lower bound in expectation, the IWAE-K bound",
        cost="M K",
        paper="Rainforth et al. 2018",
        estimators=FIXED_DRAWS,
    ),
    "ciwae": Entry(
        function=objectives.ciwae,
        kind=LOG_WEIGHTS,
        formula="beta/K sum_k log w_k + (1 - beta) log 1/K sum_k w_k",
        population="lower bound, beta of the ELBO's gap",
        finite="lower bound in expectation, rising with K",
        cost="K",
        paper="Rainforth et al. 2018",
        estimators=ANY_BOUND,
    ),
    "renyi": Entry(
        function=objectives.renyi,
        kind=LOG_WEIGHTS,
        formula="1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha)",
        population="lower bound for alpha > 0, upper for alpha < 0",
        finite="biased downwards for alpha < 1, upwards for alpha > 1: no direction for alpha < 0",
        cost="K",
        paper="Li and Turner 2016; VR-IWAE for alpha in [0, 1): Daudel et al. 2023",
        estimators=ANY_BOUND,
    ),
    "jackknife": Entry(
        function=objectives.jackknife,
        kind=LOG_WEIGHTS,
        formula="sum_j c_j L_{K-j}, j = 0..m, c_j = (-1)^j (K - j)^m / (j! (m - j)!)",
        population="log p(x) itself",
        finite="no direction, bias O(K^-(m+1))",
        cost="K; time of order K^m",
        paper="Nowozin 2018",
        estimators=ANY_BOUND,
    ),
    "tvo": Entry(
        function=objectives.tvo,
        kind=LOG_WEIGHTS,
        formula="sum_s (b_{s+1} - b_s) sum_k softmax_k(b_s log w) log w_k",
        population="lower bound, above the ELBO",
        finite="biased by O(1/K)",
        cost="K",
        paper="Masrani et al. 2019",
        estimators=ANY_BOUND,
    ),
    "sumo": Entry(
        function=roulette.sumo,
        kind=LOG_WEIGHTS,
        formula="L_1 + sum_{k=1}^T (L_{k+1} - L_k) / P(T >= k), T drawn",
        population="log p(x) itself",
        finite="unbiased for the IWAE-K bound, of large variance",
        cost="K",
        paper="Luo et al. 2020",
        estimators=FIXED_DRAWS,
    ),
    "capacity_vae": Entry(
        function=regularized.capacity_vae,
        kind=PER_EXAMPLE,
        formula="1/K sum_k log p(x|z_k) - gamma |KL(q(z|x) || p(z)) - C|",
        population="no bound (C = 0 is beta_vae)",
        finite="unbiased for it",
        cost="K",
        paper="Burgess et al. 2018",
        estimators=WITHOUT_LOG_Q,
    ),
    "free_bits": Entry(
        function=regularized.free_bits,
        kind=PER_EXAMPLE,
        formula="1/K sum_k log p(x|z_k) - sum_g max(lambda, KL_g(x))",
        population="lower bound, below the ELBO",
        finite="unbiased for it; kl=mc: in expectation below it",
        cost="K",
        paper="after Kingma et al. 2016",
        estimators=WITHOUT_LOG_Q,
    ),
    "lambda_vae": Entry(
        function=regularized.lambda_vae,
        kind=PER_EXAMPLE,
        formula="1/K sum_k -|x - mu_G(z_k)|^2 / 2 - lambda KL(q(z|x) || p(z))",
        population="lambda (ELBO + D/2 log 2 pi lambda), p(x|z) of variance lambda",
        finite="unbiased for it",
        cost="K",
        paper="textbook 13.28",
        estimators=WEIGHTED_MEAN,
    ),
    "free_bits_batch": Entry(
        function=aggregate.free_bits_batch,
        kind=WHOLE_BATCH,
        formula="1/K sum_k log p(x|z_k) - sum_g max(lambda, mean_x KL_g(x))",
        population="lower bound on the batch's mean, below the ELBO",
        finite="unbiased for it, given the batch; kl=mc: in expectation below it",
        cost="K",
        paper="Kingma et al. 2016",
        estimators=WITHOUT_LOG_Q,
    ),
    "beta_tcvae": Entry(
        function=aggregate.beta_tcvae,
        kind=WHOLE_BATCH,
        formula="1/K sum_k log p(x|z_k) - I(x; z) - beta TC(z) - sum_l KL(q(z_l) || p(z_l))",
        population="lower bound for beta >= 1",
        finite="q(z) from the batch: TC too large by up to L log N",
        cost="K, and K B^2 L densities",
        paper="Chen et al. 2018",
        estimators=("reparam",),
    ),
    "dip_vae_i": Entry(
        function=aggregate.dip_vae_i,
        kind=WHOLE_BATCH,
        formula="ELBO - lambda_off sum_{i!=j} C_ij^2 - lambda_diag sum_i (C_ii - 1)^2, "
        "C = Cov_x[E_q[z|x]]",
        population="lower bound, below the ELBO",
        finite="penalty biased by O(1/B), to either side",
        cost="K, and an L x L covariance",
        paper="Kumar et al. 2018",
        estimators=WITHOUT_LOG_Q,
    ),
    "dip_vae_ii": Entry(
        function=aggregate.dip_vae_ii,
        kind=WHOLE_BATCH,
        formula="as dip_vae_i, C = E_x[Var_q[z|x]] + Cov_x[E_q[z|x]]",
        population="lower bound, below the ELBO",
        finite="penalty biased by O(1/B), to either side",
        cost="K, and an L x L covariance",
        paper="Kumar et al. 2018",
        estimators=WITHOUT_LOG_Q,
    ),
    "info_vae": Entry(
        function=aggregate.info_vae,
        kind=WHOLE_BATCH,
        formula="1/K sum_k log p(x|z_k) - (1 - alpha) KL(q(z|x) || p(z)) - (alpha + lambda - 1) "
        "MMD^2(q(z), p(z))",
        population="no bound",
        finite="unbiased for it",
        cost="K, and 3 B^2 kernels",
        paper="Zhao et al. 2019",
        estimators=("reparam",),
    ),
    "cubo": Entry(
        function=two_targets.cubo,
        kind=TWO_TARGETS,
        formula="q: 1/n log 1/K sum_k w_k^n (minimized); p: log 1/K sum_k w_k",
        population="upper bound for n > 1",
        finite="biased downwards: below log p(x) at small K, where training by it can diverge",
        cost="K, two backward",
        paper="Dieng et al. 2017",
        estimators=NOT_WAKE,
        upper=True,
    ),
    "piwae": Entry(
        function=two_targets.piwae,
        kind=TWO_TARGETS,
        formula="p: log 1/MK sum_mk w_mk; q: 1/M sum_m log 1/K sum_k w_mk",
        population="log p(x) itself",
        finite="lower bound in expectation, the IWAE-MK bound",
        cost="M K, two backward",
        paper="Rainforth et al. 2018",
        estimators=FIXED_DRAWS,
    ),
    "iwae_elbo": Entry(
        function=two_targets.iwae_elbo,
        kind=TWO_TARGETS,
        formula="p: log 1/K sum_k w_k; q: 1/K sum_k log w_k, that is -KL(q(z|x) || p(z|x))",
        population="log p(x) itself",
        finite="lower bound in expectation, the IWAE-K bound",
        cost="K, two backward",
        paper="lecture notes, IWAE; textbook 13.11 to 13.15",
        estimators=ANY_BOUND,
    ),
    "rws": Entry(
        function=two_targets.rws,
        kind=TWO_TARGETS,
        formula="p: log 1/K sum_k w_k; q: sum_k w_k log q(z_k|x), and/or log q of dreams",
        population="log p(x) itself",
        finite="lower bound in expectation, the IWAE-K bound",
        cost="K, and a dream in the sleep phase",
        paper="Bornschein and Bengio 2015",
        estimators=(),
    ),
    "wake_sleep": Entry(
        function=two_targets.wake_sleep,
        kind=TWO_TARGETS,
        formula="p: 1/K sum_k log w_k; q: log q of dreams",
        population="lower bound, the ELBO",
        finite="unbiased for it",
        cost="K, and a dream",
        paper="Hinton et al. 1995",
        estimators=(),
    ),
}

# Objective functions by the name that the flag --objective takes.
OBJECTIVES: dict[str, Callable] = {name: entry.function for name, entry in CATALOGUE.items()}
