"""Each objective's loss in NumPy float64, from the log densities in its aux."""

import functools

import numpy as np

from tests.losses import every_bound, numpy_bounds
from tests.losses.calls import OPTIONS

ROULETTE = (1.0, 0.5, 1 / 3, 0.25, 0.2)  # P(terms >= k), k = 1 .. 5


def moments(params, x):
    """Mean [B, L] and variance [L] of q, and the KL to N(0, I) of each dimension, [B, L]."""
    mean, variance = x @ params.a.T + params.c, np.exp(2 * params.log_scale)
    return mean, variance, 0.5 * (variance + mean**2 - 1 - np.log(variance))


def log_density(z, mean, scale):
    return -0.5 * ((z - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def total_correlation(params, x, z, dataset_size):
    """Total correlation by minibatch-weighted sampling, [B], nats; z [K, B, L]."""
    mean, variance, _ = moments(params, x)
    pairs = log_density(z[:, :, None], mean, np.sqrt(variance))  # [K, B, B, L]
    count = np.log(dataset_size * len(x))
    log_qz = np.log(np.sum(np.exp(np.sum(pairs, axis=-1)), axis=2)) - count
    log_qz_l = np.log(np.sum(np.exp(pairs), axis=2)) - count
    return np.mean(log_qz - np.sum(log_qz_l, axis=-1), axis=0)


def decorrelation(params, x, lambda_off, lambda_diag, with_variance):
    mean, variance, _ = moments(params, x)
    matrix = np.cov(mean.T, bias=True) + with_variance * np.diag(variance)
    diagonal = np.diag(matrix)
    off = np.sum(matrix**2) - np.sum(diagonal**2)
    return lambda_off * off + lambda_diag * np.sum((diagonal - 1) ** 2)


def roulettes(log_w):
    """SUMO for every number of terms that may have been drawn, [K - 1, B]."""
    iwae = np.array([numpy_bounds.log_mean_exp(log_w[: k + 1]) for k in range(len(log_w))])
    return iwae[0] + np.cumsum(np.diff(iwae, axis=0) / np.reshape(ROULETTE, (-1, 1)), axis=0)


def bound_of(function):
    return lambda aux, params, x, z: -function(aux.log_w)


def with_kl(function):
    """The loss: a function of the KL of each dimension, [B, L], minus E[log p(x|z)]."""

    def loss(aux, params, x, z):
        return function(moments(params, x)[2]) - np.mean(aux.log_px_z, axis=0)

    return loss


def weighted_kl(weight):
    def loss(aux, params, x, z):
        return np.mean(weight * (aux.log_qz_x - aux.log_pz) - aux.log_px_z, axis=0)

    return loss


def elbo_with(penalty):
    """The loss: minus the ELBO, plus a penalty of the parameters and x."""

    def loss(aux, params, x, z):
        kl = np.sum(moments(params, x)[2], axis=-1)
        return kl - np.mean(aux.log_px_z, axis=0) + penalty(params, x)

    return loss


def tcvae(aux, params, x, z):
    return weighted_kl(1.0)(aux, params, x, z) + 2 * total_correlation(params, x, z, 50)


LOSSES = {
    "elbo": bound_of(numpy_bounds.mean),
    "beta_vae": weighted_kl(OPTIONS["beta_vae"]["beta"]),
    "iwae": bound_of(numpy_bounds.log_mean_exp),
    "miwae": bound_of(every_bound.VALUES["miwae"]),
    "ciwae": bound_of(functools.partial(numpy_bounds.mixed, beta=0.5)),
    "renyi": bound_of(every_bound.VALUES["renyi(.5)"]),
    "jackknife": bound_of(numpy_bounds.jackknife_1),
    "tvo": bound_of(every_bound.VALUES["tvo"]),
    "capacity_vae": with_kl(lambda kl: 3 * np.abs(np.sum(kl, axis=-1) - 0.7)),
    "free_bits": with_kl(lambda kl: np.sum(np.maximum(kl, 0.6), axis=-1)),
    "free_bits_batch": with_kl(lambda kl: np.sum(np.maximum(np.mean(kl, axis=0), 0.6))),
    "lambda_vae": weighted_kl(OPTIONS["lambda_vae"]["regularization"]),
    "beta_tcvae": tcvae,
    "dip_vae_i": elbo_with(
        functools.partial(decorrelation, lambda_off=10, lambda_diag=10, with_variance=False)
    ),
    "dip_vae_ii": elbo_with(
        functools.partial(decorrelation, lambda_off=10, lambda_diag=10, with_variance=True)
    ),
    "cubo": lambda aux, params, x, z: numpy_bounds.power_mean(aux.log_w, 2.0),
    "piwae": bound_of(numpy_bounds.log_mean_exp),
    "iwae_elbo": bound_of(numpy_bounds.log_mean_exp),
    "rws": bound_of(numpy_bounds.log_mean_exp),
    "wake_sleep": bound_of(numpy_bounds.mean),
}


def distance(name, loss, aux, params, x, z):
    """The greatest |loss - exact loss|, nats; all [B] or [K, B], float64."""
    if name == "sumo":  # The number of terms is unknown: some number must give the value.
        return np.max(np.min(np.abs(loss + roulettes(aux.log_w)), axis=0))
    if name == "info_vae":  # The discrepancy, one for the batch, is within +-2.
        kl = np.sum(moments(params, x)[2], axis=-1)
        rest = loss + np.mean(aux.log_px_z, axis=0) - OPTIONS[name]["kl_weight"] * kl
        assert np.all(np.abs(rest) < 2 * OPTIONS[name]["mmd_weight"])
        return np.ptp(rest)
    return np.max(np.abs(loss - LOSSES[name](aux, params, x, z)))
