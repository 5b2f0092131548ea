"""A run whose q(z|x) and p(z) are flows, from the command line: trained, sampled, loaded."""

import jax
import numpy as np
import pytest

import elbo_lab
from tests.cli.conftest import command

pytestmark = pytest.mark.slow

FLOWS = (
    *("--posterior=iaf", "--posterior_depth=1", "--posterior_width=4", "--k=2"),
    *("--prior=flow", "--prior_flow=spline", "--prior_depth=1", "--prior_width=4"),
    *("--estimator=dreg", "--epochs=2", "--tensorboard=false"),
)


def test_a_run_is_trained_sampled_and_loaded(cli, tmp_path):
    run = tmp_path / "flows"
    done = cli.run(f"--workdir={run}", *FLOWS)
    assert "inverse autoregressive posterior, flow prior" in " ".join(done.stdout.split())
    command(cli, "sample", f"--run={run}", "--num=5", f"--out={tmp_path / 'x.npz'}")
    with np.load(tmp_path / "x.npz") as file:
        assert file["x"].shape == (5, 8, 8)
    trained = elbo_lab.load(run)
    x = np.random.default_rng(0).random((3, 8, 8)) > 0.5
    codes = trained.encode(x)
    assert codes.shape == (3, 3) and np.all(np.isfinite(codes))
    np.testing.assert_array_equal(codes, trained.encode(x))
    measured = trained.measure(jax.random.key(1), x)
    assert np.all(np.asarray(measured["log_likelihood"]) < 0)
