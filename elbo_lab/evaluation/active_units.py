"""Which latent units carry information about the data."""

import numpy as np

# A unit u is active where Var_x(E_q(u|x)[u]) exceeds this (Burda et al. 2016, section 5.2).
ACTIVE_THRESHOLD = 0.01


def activity(means: np.ndarray) -> np.ndarray:
    """Var_x(E_q[z_l|x]) of each unit: means [N, L] over a split -> [L]."""
    return np.var(np.asarray(means, np.float64), axis=0)
