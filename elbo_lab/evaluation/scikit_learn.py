"""scikit-learn, of the extra `classification`, which few parts of the library use."""

import importlib.util

from elbo_lab.errors import UserError


def check_installed(user: str) -> None:
    """Raises a UserError that says what to install if scikit-learn is missing.

    Args:
      user: what needs it, e.g. "--measures=classification".
    """
    if importlib.util.find_spec("sklearn") is None:
        raise UserError(
            f"{user} uses scikit-learn, which is not installed: "
            'pip install "elbo_lab[classification]", or in a clone pip install -e '
            '".[classification]".'
        )
