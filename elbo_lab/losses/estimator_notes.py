"""What each gradient estimator weighs and needs, for a table of `docs/bounds.md`."""

from typing import NamedTuple


class EstimatorNote(NamedTuple):
    """Weights of the terms of an estimator, and conditions of its use."""

    model_weight: str  # of the derivative by the parameters of prior and likelihood
    path_weight: str  # of d log w_k / dz through the draw z_k
    score_weight: str  # of d log q(z_k) / d phi
    bias: str  # for the gradient of the expected bound, where q's support does not move
    needs: str  # of posterior, K and bound
    paper: str


ESTIMATOR_NOTES: dict[str, EstimatorNote] = {
    "reparam": EstimatorNote(
        model_weight="v",
        path_weight="v",
        score_weight="-v",
        bias="none",
        needs="draws with a derivative; the support of q may move",
        paper="Kingma and Welling 2014",
    ),
    "stl": EstimatorNote(
        model_weight="v",
        path_weight="v",
        score_weight="0",
        bias="biased, except for bounds linear in log w (ELBO, beta-VAE; IWAE at K = 1)",
        needs="draws with a derivative, log q of a given z",
        paper="Roeder et al. 2017",
    ),
    "dreg": EstimatorNote(
        model_weight="v",
        path_weight="v - h",
        score_weight="0",
        bias="none",
        needs="draws with a derivative, log q of a given z, continuous df",
        paper="Tucker et al. 2019 (IWAE), here any f",
    ),
    "score": EstimatorNote(
        model_weight="v",
        path_weight="0",
        score_weight="f - baseline - v",
        bias="none",
        needs="no derivative of draws; the caller may pass a baseline",
        paper="Williams 1992",
    ),
    "score_loo": EstimatorNote(
        model_weight="v",
        path_weight="0",
        score_weight="f - f(the others) - v",
        bias="none",
        needs="K >= 2, f defined for K - 1 draws",
        paper="Kool et al. 2019 (ELBO), here any f",
    ),
    "vimco": EstimatorNote(
        model_weight="v",
        path_weight="0",
        score_weight="f - f(log w_k replaced by the others' mean) - v",
        bias="none",
        needs="K >= 2",
        paper="Mnih and Rezende 2016",
    ),
    "ovis": EstimatorNote(
        model_weight="v",
        path_weight="0",
        score_weight="-log(1 - v) - v + gamma (v + log(1 - 1/K))",
        bias="none at gamma = 0 (the default), biased at any gamma > 0",
        needs="K >= 2, the IWAE bound",
        paper="Lievin et al. 2020",
    ),
    "wake": EstimatorNote(
        model_weight="v",
        path_weight="0",
        score_weight="w",
        bias="follows no bound: -KL(p(z|x) || q(z|x)), biased by O(1/K)",
        needs="nothing",
        paper="Bornschein and Bengio 2015",
    ),
    "wake_dreg": EstimatorNote(
        model_weight="v",
        path_weight="w - w^2",
        score_weight="0",
        bias="the expectation of wake",
        needs="draws with a derivative, log q of a given z",
        paper="Tucker et al. 2019",
    ),
    "enumerate": EstimatorNote(
        model_weight="q(z)",
        path_weight="0",
        score_weight="q(z) (log w - 1)",
        bias="none, and no variance: a sum over all z instead of draws",
        needs="a posterior with `enumerate_support` (at most 2^16 values), a mean over draws",
        paper="the definition of E_q",
    ),
    "arm": EstimatorNote(
        model_weight="v",
        path_weight="0",
        score_weight="by each logit 1/2 (s - s with z_k's partner in its place) (1 - 2 u_k), "
        "s = f - v",
        bias="none",
        needs="a posterior of independent Bernoulli variables, in one layer or several",
        paper="Yin and Zhou 2019, here any f",
    ),
    "disarm": EstimatorNote(
        model_weight="v",
        path_weight="0",
        score_weight="as arm, with (z_k - its partner) sigmoid(abs(logit)) for 1 - 2 u_k",
        bias="none",
        needs="as arm",
        paper="Dong et al. 2020; Yin et al. 2022, here any f",
    ),
    "rebar": EstimatorNote(
        model_weight="v",
        path_weight="v of z_k's relaxation, by the part of its derivative that z_k's value leaves",
        score_weight="f - f(z_k relaxed) - (v - 1/K)",
        bias="none",
        needs="independent Bernoulli variables in one layer; p(z) and p(x|z) for z in [0, 1]",
        paper="Tucker et al. 2017, here any f",
    ),
    "gumbel_softmax": EstimatorNote(
        model_weight="v",
        path_weight="v, at relaxed draws",
        score_weight="-v, at relaxed draws",
        bias="biased for q, less at a low temperature",
        needs="as arm; p(z) and p(x|z) for z in [0, 1]",
        paper="Maddison et al. 2017; Jang et al. 2017",
    ),
    "straight_through": EstimatorNote(
        model_weight="v",
        path_weight="v, by the derivative of the relaxed draw",
        score_weight="-v",
        bias="biased for q",
        needs="as gumbel_softmax",
        paper="Bengio et al. 2013; Jang et al. 2017",
    ),
}
