"""Settings of each optimizer."""

import dataclasses

from elbo_lab.options import option


@dataclasses.dataclass(frozen=True)
class AdamOptions:
    """Settings of `adam`."""

    adam_b1: float = option(0.9, "beta_1, decay of the first moment", least=0, below=1)
    adam_b2: float = option(0.999, "beta_2, decay of the second moment", least=0, below=1)
    adam_eps: float = option(1e-4, "epsilon, added to the second moment's root", above=0)
    adam_eps_hat: bool = option(
        False,
        "add epsilon to the second moment's root before its bias is corrected, not after (the last "
        "formula of section 2 of Adam's paper)",
    )
    adam_nu_start: float = option(0.0, "the second moment before the first step", least=0)


@dataclasses.dataclass(frozen=True)
class AdamaxOptions:
    """Settings of `adamax`."""

    adam_b1: float = option(0.9, "beta_1, decay of the first moment", least=0, below=1)
    adam_b2: float = option(0.999, "beta_2, decay of the largest gradient", least=0, below=1)
    adam_eps: float = option(1e-8, "epsilon, added to the gradient's size", above=0)


@dataclasses.dataclass(frozen=True)
class MuonOptions:
    """Settings of `muon`."""

    muon_beta: float = option(0.95, "decay of a matrix's momentum", least=0, below=1)
    muon_steps: int = option(
        5, "Newton-Schulz iterations that orthogonalize the momentum", least=1, most=100
    )
    muon_rms: float | None = option(
        None,
        "root mean square of the entries of a matrix's direction, for every shape (0.2 is like "
        "Adam's); if not given, the direction is scaled by sqrt(max(1, columns / rows))",
        above=0,
    )
    adam_b1: float = option(0.9, "beta_1 of Adam, for what is no matrix", least=0, below=1)
    adam_b2: float = option(0.999, "beta_2 of Adam, for what is no matrix", least=0, below=1)
    adam_eps: float = option(
        1e-8, "epsilon of Adam, and of the norm that a matrix's momentum is divided by", above=0
    )


@dataclasses.dataclass(frozen=True)
class SoapOptions:
    """Settings of `soap`."""

    adam_b1: float = option(0.95, "beta_1, decay of the first moment", least=0, below=1)
    adam_b2: float = option(0.95, "beta_2, decay of the second moment", least=0, below=1)
    adam_eps: float = option(1e-8, "epsilon, added to the second moment's root", above=0)
    soap_decay: float = option(0.95, "decay of the Kronecker factors", least=0, below=1)
    soap_frequency: int = option(10, "steps between renewals of the bases", least=1)
    soap_max_dim: int = option(256, "longest axis that is preconditioned", least=0)
    soap_factor_every: int = option(1, "steps between updates of the factors", least=1)


@dataclasses.dataclass(frozen=True)
class ScheduleFreeOptions:
    """Settings of `schedule_free`."""

    schedule_free_b1: float = option(
        0.9, "weight of the average where gradients are taken", above=0, below=1
    )
    adam_b2: float = option(0.999, "beta_2, decay of the second moment", least=0, below=1)
    adam_eps: float = option(1e-8, "epsilon, added to the second moment's root", above=0)
    schedule_free_power: float = option(
        2.0, "power of the learning rate that weighs a step in the average", least=0
    )


@dataclasses.dataclass(frozen=True)
class SGDOptions:
    """Settings of `sgd`."""

    momentum: float = option(0.0, "decay of the sum of gradients", least=0, below=1)
    nesterov: bool = option(False, "Nesterov's momentum")


# The class of settings of every optimizer that `--optimizer` accepts.
OPTIMIZER_OPTIONS: dict[str, type] = {
    "adam": AdamOptions,
    "adamax": AdamaxOptions,
    "muon": MuonOptions,
    "soap": SoapOptions,
    "schedule_free": ScheduleFreeOptions,
    "sgd": SGDOptions,
}
# A line about each optimizer for `--help`.
ABOUT: dict[str, str] = {
    "adam": "Kingma and Ba (2015)",
    "adamax": "Adam with the largest gradient in place of the second moment (Kingma and Ba 2015)",
    "muon": "orthogonalized momentum for matrices, Adam for the rest (Jordan et al. 2024)",
    "soap": "Adam in the eigenbasis of Shampoo's factors (Vyas et al. 2024)",
    "schedule_free": "Adam without momentum and with an average of its iterates, for a constant "
    "learning rate (Defazio et al. 2024)",
    "sgd": "gradient descent with momentum",
}
