"""elbo_lab: variational bounds, their gradient estimators, and a laboratory around them.

Import the part you need, e.g. `from elbo_lab import losses`; nothing is imported eagerly.
"""

__version__ = "0.1.0"
