"""Refuses flags that have no effect on a mixture, and more components than its start can draw."""

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.models.mixture import EM, KMEANS, MixtureOptions
from elbo_lab.options import options_of
from elbo_lab.runs.examples import FIRST_ROWS

# Shared fields that only a gradient gives a meaning, besides the settings of the optimizer.
_OF_GRADIENTS = (
    "optimizer",
    "learning_rate",
    "lr_schedule",
    "warmup_steps",
    "batch_gradient",
    "clip_norm",
    "ema",
)


def needs_gradient(config: Config, name: str) -> bool:
    """True if a flag has a meaning for fits by gradients alone."""
    return name in _OF_GRADIENTS or name in options_of(config.optimizer_options)


def check(config: Config) -> None:
    """Raises a UserError for a setting that the fit or the components of a mixture do not use."""
    options = config.model_options
    if not isinstance(options, MixtureOptions):
        return
    given = configs.non_defaults(config)
    if options.fit == EM:
        for name in given:
            if needs_gradient(config, name):
                raise UserError(
                    f"--{name}={configs.flag_text(given[name])} has no effect with --fit=em, which "
                    "takes no gradient; leave it out, or give --fit=gradient."
                )
    elif "em_decay" in given:
        raise UserError(
            f"--em_decay={options.em_decay} has no effect with --fit=gradient; leave it out, or "
            "give --fit=em."
        )
    if "covariance" in given and options.likelihood != "gaussian":
        raise UserError(
            f"--covariance={options.covariance} has no effect with --likelihood="
            f"{options.likelihood}, whose components have no covariance; leave it out, or give "
            "--likelihood=gaussian."
        )


def check_rows(config: Config, number: int) -> None:
    """Raises a UserError for more components than the start can draw from the first examples.

    Args:
      config: a run's.
      number: training examples.
    """
    options = config.model_options
    if not isinstance(options, MixtureOptions) or options.start != KMEANS:
        return
    rows = min(FIRST_ROWS, number)
    if options.components > rows:
        raise UserError(
            f"--components must be at most {rows} with --start={KMEANS}, which draws the means "
            f"from the first {rows} training examples; got {options.components}. --start=random "
            "takes any number."
        )
