"""Digests in the directory names of version 0.1, by which its runs and sweeps are still found.

They were over every field; settings of other objectives were None.
"""

from collections.abc import Sequence
from typing import Any

from elbo_lab import configs
from elbo_lab.configs import Config

# The fields of that version and their defaults; this list never changes.
_FIELDS: dict[str, Any] = {
    **{"objective": "iwae", "k": 5, "m": 1, "estimator": None},
    **{"kl": None, "beta": None, "alpha": None, "power": None, "order": None, "partition": None},
    **{"phase": None, "gamma": None, "capacity": None, "min_kl": None, "group_size": None},
    **{"regularization": None, "lambda_off": None, "lambda_diag": None},
    **{"kl_weight": None, "mmd_weight": None},
    **{"model": "mlp", "latent_dims": [50], "hidden_dims": [200, 200]},
    **{"upper_hidden_dims": [100, 100], "activation": "tanh", "scale": "log_std"},
    **{"likelihood": "bernoulli", "output_bias": "train_mean", "init": "glorot"},
    **{"center_inputs": False, "dataset": "mnist_small", "held_out": 0, "binarization": "dynamic"},
    **{"test_draw": "common", "batch_size": 20, "epochs": 100, "learning_rate": 0.001},
    **{"lr_schedule": "cosine", "shuffle": True, "batch_gradient": "mean", "adam_b1": 0.9},
    **{"adam_b2": 0.999, "adam_eps": 0.0001, "adam_eps_hat": False, "adam_nu_start": 0.0},
    **{"clip_norm": None, "seed": 0, "replicates": 1, "eval_k": 5000, "au_images": None},
    **{"log_every": None, "checkpoint_every": None},
}


def digest(config: Config) -> str | None:
    """The digest of a config's run; None if the config has fields that version 0.1 lacked."""
    values = _values(config)
    return None if values is None else configs.digest_of(values)


def digest_of_all(replicas: Sequence[Config]) -> str | None:
    """The digest of several replicates together; None as in `digest`."""
    values = [_values(replica) for replica in replicas]
    return None if None in values else configs.digest_of(values)


def _values(config: Config) -> dict[str, Any] | None:
    """The fields that version 0.1 stored of a config; None as in `digest`."""
    if any(name not in _FIELDS for name in configs.digest_values(config)):
        return None
    values = configs.to_dict(config)
    return {name: values.get(name, default) for name, default in _FIELDS.items()}
