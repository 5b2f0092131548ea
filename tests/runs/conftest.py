"""A small run that is created and not trained."""

import signal

import numpy as np
import pytest

from elbo_lab import configs, training
from elbo_lab.data import Dataset
from elbo_lab.runs import examples, stages

CONFIG = configs.make(
    hidden_dims=(6,), latent_dims=(3,), batch_size=4, epochs=1, k=2, eval_k=4, replicates=2
)

LABELS = np.arange(30, dtype=np.int32) % 4


@pytest.fixture
def begun(tmp_path):
    """A function that creates a run without training it; signal handlers are restored later."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    grey = np.random.default_rng(0).integers(0, 256, (30, 16)).astype(np.uint8)
    dataset = Dataset("grey", grey[:20], grey[20:], LABELS[:20], LABELS[20:], (4, 4))

    def begin(initialized: bool = True, **options) -> stages.Run:
        run = stages.Run(configs.replace(CONFIG, **options), tmp_path, dataset, False)
        if not initialized:  # Initialization takes seconds.
            return run
        loop = training.make_loop(run.config, run.method, len(run.dataset.x_train))
        run.state = loop.init(run.keys, *examples.first_rows(run.dataset))
        return run

    yield begin
    for number, handler in before.items():
        signal.signal(number, handler)
