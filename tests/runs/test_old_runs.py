"""Runs and sweeps of version 0.1, whose configurations held every setting of every objective."""

import json
import os

import pytest

from elbo_lab import configs, training
from elbo_lab.cli import run_flags
from elbo_lab.errors import UserError
from elbo_lab.runs import rundir
from elbo_lab.sweeps import sweep_folder

# A config.json of that version, and the names of its directories.
STORED = json.loads("""{"config": {
"objective": "beta_vae", "k": 1, "m": 1, "estimator": "reparam", "kl": "analytic",
"beta": "linear:0:4:100", "alpha": null, "power": null, "order": null, "partition": null,
"phase": null, "gamma": null, "capacity": null, "min_kl": null, "group_size": null,
"regularization": null, "lambda_off": null, "lambda_diag": null, "kl_weight": null,
"mmd_weight": null, "model": "mlp", "latent_dims": [4], "hidden_dims": [200, 200],
"upper_hidden_dims": [100, 100], "activation": "tanh", "scale": "log_std",
"likelihood": "bernoulli", "output_bias": "train_mean", "init": "glorot", "center_inputs": false,
"dataset": "mnist_small", "held_out": 0, "binarization": "dynamic", "test_draw": "common",
"batch_size": 20, "epochs": 100, "learning_rate": 0.001, "lr_schedule": "cosine",
"shuffle": true, "batch_gradient": "mean", "adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 0.0001,
"adam_eps_hat": false, "adam_nu_start": 0.0, "clip_norm": null, "seed": 0, "replicates": 1,
"eval_k": 5000, "au_images": null, "log_every": null, "checkpoint_every": null},
"data_sha256": "0123"}""")
BETA_VAE = {"objective": "beta_vae", "beta": "linear:0:4:100", "latent_dims": "4", "k": "1"}
RUNS = [
    ({}, "iwae-k5-mnist_small-64b5d058"),
    (BETA_VAE, "beta_vae-k1-mnist_small-57b278db"),
    (
        {"objective": "renyi", "alpha": "-inf", "hidden_dims": "8,8", "clip_norm": "2"},
        "renyi-k5-mnist_small-91d41e03",
    ),
    (
        {"protocol": "burda2015_code", "objective": "tvo", "partition": "0,0.5,1"},
        "tvo-k5-mnist-e21b0ea5",
    ),
    ({"objective": "wake_sleep"}, "wake_sleep-k5-mnist_small-7a49832c"),
]
OLD_GROUP, OLD_SWEEP = "beta_vae-k1-reparam-eaddae13", "sweep-mnist_small-eaddae13"  # seeds 0 and 1


def config_of(texts: dict[str, str]) -> configs.Config:
    return configs.resolved(run_flags.config_of(texts))


def test_a_stored_configuration_is_the_same_one_and_its_directory_can_be_claimed(tmp_path):
    config = config_of(BETA_VAE)
    assert configs.from_dict(STORED["config"]) == config
    assert configs.differences(config, STORED["config"]) == []
    (tmp_path / "config.json").write_text(json.dumps(STORED))
    with rundir.claim(str(tmp_path), config, "0123", False):
        assert json.loads((tmp_path / "config.json").read_text()) == STORED
    with pytest.raises(UserError, match="Differing fields: beta: 2.0 here, 'linear:0:4:100' there"):
        with rundir.claim(str(tmp_path), configs.replace(config, beta=2.0), "0123", False):
            pass


@pytest.mark.parametrize("missing", ["adam_nu_start", "center_inputs", "kl"])
def test_a_field_that_a_stored_configuration_lacks_has_its_default(missing):
    stored = {n: v for n, v in STORED["config"].items() if n != missing}
    config = config_of(BETA_VAE)
    assert configs.from_dict(stored) == config
    assert configs.differences(config, stored) == []
    if missing == "center_inputs":
        other = configs.replace(config, center_inputs=True)
        assert configs.differences(other, stored) == ["center_inputs: True here, False there"]


@pytest.mark.parametrize(("texts", "old"), RUNS, ids=lambda value: str(value))
def test_the_directory_of_an_old_run_is_found(tmp_path, monkeypatch, texts, old):
    monkeypatch.chdir(tmp_path)
    config = config_of(texts)
    new = rundir.default_name(config)
    assert new != os.path.join("runs", old)
    os.makedirs(os.path.join("runs", old))
    assert rundir.default_name(config) == os.path.join("runs", old)
    assert rundir.default_name(configs.replace(config, seed=1)) != os.path.join("runs", old)
    os.makedirs(new)  # made by this version
    assert rundir.default_name(config) == new


def test_an_old_sweep_is_found_and_its_begun_run_continues_in_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replicas = training.replicas(configs.replace(config_of(BETA_VAE), replicates=2))
    folder = tmp_path / "runs" / OLD_SWEEP
    run = folder / "runs" / OLD_GROUP
    run.mkdir(parents=True)
    own = {"config": {**STORED["config"], "replicates": 2}, "replicas": [{"seed": 0}, {"seed": 1}]}
    (run / "config.json").write_text(json.dumps(STORED | own))
    assert sweep_folder.default_name("sweep", replicas) == os.path.join("runs", OLD_SWEEP)
    begun, left = sweep_folder.missing(sweep_folder.read(folder, {"mnist_small": "0123"}), replicas)
    assert left == []
    (group,) = begun
    assert group.name == OLD_GROUP
    with rundir.claim(str(run), group.config, "0123", False, group.replicas):
        pass
