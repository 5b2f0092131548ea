"""Activity of latent units: how much their posterior means vary with the data."""

import numpy as np

# A unit u is active if Var_x(E_q(u|x)[u]) exceeds this (Burda et al. 2016, section 5.2).
ACTIVE_THRESHOLD = 0.01


def activity(means: np.ndarray) -> np.ndarray:
    """Var_x(E_q[z_l|x]) of each latent unit l.

    Args:
      means: [N, L], posterior means over a split.

    Returns:
      [L], float64.
    """
    return np.var(np.asarray(means, np.float64), axis=0)
