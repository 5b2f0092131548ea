"""`elbo_lab.losses` imports nothing heavy, and its public names exist."""

import subprocess
import sys

from elbo_lab import losses

UNWANTED = [
    "absl.app",
    "elbo_lab.data",
    "elbo_lab.distributions",
    "elbo_lab.models",
    "elbo_lab.training.loop",
    "flax",
    "matplotlib",
    "numpyro",
    "optax",
    "orbax",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
]


def test_importing_losses_imports_no_other_part():
    program = f"import sys, elbo_lab.losses; print(*(m for m in {UNWANTED} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_public_names_exist():
    assert all(hasattr(losses, name) for name in losses.__all__)
    assert all(hasattr(losses, name) for name in losses.OBJECTIVES)
