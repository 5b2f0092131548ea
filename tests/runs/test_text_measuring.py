"""The measure `text` of stored runs: what it refuses."""

from types import SimpleNamespace

import pytest

from elbo_lab.errors import UserError
from elbo_lab.runs import text_measuring


def test_a_run_that_draws_no_texts_is_refused():
    texts = SimpleNamespace(text="a vocabulary", kind="token", decode=None)
    run = SimpleNamespace(
        path="runs/x",
        dataset=texts,
        method=SimpleNamespace(sample=None),
        config=SimpleNamespace(model="vqvae", dataset="poems.txt"),
    )
    with pytest.raises(UserError, match="draws texts; runs/x is a run of vqvae, which gives no s"):
        text_measuring.check(run, None, texts)
    images = SimpleNamespace(text=None, kind="image", decode=None)
    with pytest.raises(UserError, match="needs a run of texts; runs/x was trained on poems.txt"):
        text_measuring.check(SimpleNamespace(**vars(run) | {"dataset": images}), None, images)
