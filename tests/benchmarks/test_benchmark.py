"""The benchmark: its flags and figures, and that peers compute what this library does. No time is
asserted.
"""

import functools
import importlib
import importlib.util

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import limits, merging, parts, peers, systems, training, workers
from benchmarks.peers import OURS, ROWS, common, ours
from elbo_lab import configs
from elbo_lab.errors import UserError
from elbo_lab.files import read_json
from elbo_lab.methods import codebook
from elbo_lab.training import TrainState
from tools import make_performance_tables

HERE = {"device": "cpu, 2 cores", "processor": "a processor", "machine": "x86_64"}
RUN = {"command": "python -m experiments.benchmark", "date": "2026-01-02", "python": "3.11"}
DRAWS = 40


def make_peer(row: str, task: common.Task) -> common.Peer:
    module = importlib.import_module(f"benchmarks.peers.{ROWS[row].module}")
    return module.make(task, **ROWS[row].options)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Small tasks by k, with the same parameters."""
    result = {}
    for k in (1, 3):
        with workers.task_folder(5, k, num_images=60) as folder:
            result[k] = common.read_task(folder, steps=7, replicates=1)
    return result


def bound_of(peer: common.Peer) -> list[float]:
    return training.mean_and_error([peer.bound() for _ in range(DRAWS)])


def likelihood_of(peer: common.Peer, task: common.Task) -> list[float]:
    """Mean and standard error of 8 values of L_5000 of 4 images."""
    return training.mean_and_error([peer.log_likelihood(task.x[:4]) for _ in range(8)])


def gain(peer: common.Peer) -> float:
    """Increase of the bound in 4 calls of 7 steps of Adam, nats."""
    before = bound_of(peer)[0]
    for _ in range(4):
        peer.train()
    return bound_of(peer)[0] - before


def agree(row: str, task: common.Task) -> None:
    """Asserts that bounds and L_5000 agree at the same parameters, and gains by training."""
    own, theirs = make_peer(OURS, task), make_peer(row, task)
    training.check_agreement(row, bound_of(own), bound_of(theirs))
    # With this poor posterior, the L_5000 of an image varies by more than a nat between draws.
    training.check_agreement(row, likelihood_of(own, task), likelihood_of(theirs, task))
    gains = gain(own), gain(theirs)
    # The two have different binary images and draws.
    assert gains[0] > 2
    assert abs(gains[0] - gains[1]) < 0.25 * gains[0], gains


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("row", ["numpyro", "pytorch", "pyro", "pythae"])
def test_peers_compute_and_train_as_this_library(tasks, row, k):
    package = {"pytorch": "torch"}.get(row, row)
    pytest.importorskip(package, exc_type=ImportError)
    agree(row, tasks[k])


# The gains of models with draws of latents differ by these; the other models have none.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "learning_rate", "steps", "tolerance"),
    [
        ("conv", 3e-3, 40, 0.3),
        ("sbn", 3e-3, 6, 0.3),
        ("pixelcnn", 1e-3, 6, 1e-3),
        ("pixelvae", 3e-3, 80, 0.3),
        ("vqvae", 1e-3, 6, 1e-3),
        ("text", 3e-3, 40, 0.3),
        ("text_autoregressive", 3e-3, 12, 0.3),
    ],
)
def test_pytorch_trains_the_other_models_as_this_library(name, learning_rate, steps, tolerance):
    pytest.importorskip("torch", exc_type=ImportError)
    _, k, _, model, options = systems.SYSTEMS[name]
    with workers.task_folder(8, k, num_images=8, model=model, options=options) as folder:
        task = common.read_task(folder, steps=1, replicates=1)
    # With binary images, all of them in every batch, both take the same steps.
    x = task.x[:8]
    images = x if model == "text" else (255 * x).astype(np.uint8)
    task = task._replace(x=x, images=images, learning_rate=learning_rate)
    pair = make_peer(OURS, task), make_peer("pytorch_systems", task)
    starts = [bound_of(peer) for peer in pair]
    training.check_agreement("pytorch_systems", *starts)
    for peer in pair:
        for _ in range(steps):
            peer.train()
    gains = [bound_of(peer)[0] - start[0] for peer, start in zip(pair, starts, strict=True)]
    assert gains[0] > 0.5
    np.testing.assert_allclose(gains[1], gains[0], rtol=tolerance)
    wrong = task._replace(arrays={**task.arrays, "params/another": np.zeros(1)})
    with pytest.raises(RuntimeError, match=f"{model} has .* parameters here and .* in the library"):
        make_peer("pytorch_systems", wrong)


def test_the_belief_network_is_trained_by_vimco_as_in_pytorch():
    images = np.zeros((10, 1), np.uint8)
    adam = (0.9, 0.999, 1e-4)
    task = common.Task(128, 5, 4, 1, "cpu", 1, 0.1, adam, images, images, {}, model="sbn")
    config = configs.resolved(ours.config_of(task))
    assert (config.objective, config.k, config.estimator) == ("iwae", 5, "vimco")
    assert config.model_options.latent_dims == (200,)


@pytest.mark.slow
def test_the_gradient_of_vimco_in_pytorch_is_that_of_its_paper():
    """Mnih and Rezende 2016, equations 7 to 10, by NumPy."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from benchmarks.peers import pytorch_systems

    rng, number = np.random.default_rng(0), 4
    values, batch = rng.normal(0, 2, (number, 3)), 3
    log_w = torch.tensor(values, requires_grad=True)
    log_qz_x = torch.tensor(rng.normal(size=(number, batch)), requires_grad=True)
    pytorch_systems.vimco_loss(log_w, log_qz_x).backward()
    bound = np.log(np.mean(np.exp(values), axis=0))
    np.testing.assert_allclose(log_w.grad, -np.exp(values - bound) / number / batch)
    for i in range(number):
        others = np.delete(values, i, axis=0)
        replaced = np.concatenate([others, others.mean(0, keepdims=True)])
        signal = bound - np.log(np.mean(np.exp(replaced), axis=0))
        np.testing.assert_allclose(log_qz_x.grad[i], -signal / batch)


def system_line(speed: float, ratio: float) -> dict:
    """A row of a model family's figures."""
    return {
        "steps_per_s": speed,
        "ours_over_this": {"median": ratio, "quartiles": [ratio - 0.1, ratio + 0.1]},
        "peak_memory_mb": 700.4,
        "bound_at_start": [-310.125, 0.0],
        "bound_after": [-300.0, 0.0],
        "bound_after_steps": 60,
    }


def test_other_model_families_are_measured_in_turn_and_kept(monkeypatch, capsys):
    def measure(name, rows, rounds, burst, say):
        lines = {row: system_line(20.0, 1.0) for row in (OURS, *rows)}
        return {"model": name, "batch": 128, "parameters": 1234, "rows": lines}

    monkeypatch.setattr(systems, "measure_system", measure)
    kept = []
    request = parts.Request(["systems"], [], ["pytorch", "pytorch_compiled", "numpyro"], 3, 0.1)
    parts.measure(request, lambda part, value: kept.append((part, [c["model"] for c in value])))
    names = list(systems.SYSTEMS)
    assert kept == [("systems", names[: i + 1]) for i in range(len(names))]
    printed = capsys.readouterr().out
    assert "VQ-VAE, B = 128, 1,234 parameters" in printed
    assert printed.count("PyTorch eager") == len(names) and "NumPyro" not in printed


def test_tables_of_other_model_families():
    lines = {OURS: system_line(41.2, 1.0), "pytorch_systems": system_line(25.04, 1.65)}
    alone = {OURS: system_line(2.5, 1.0)}
    cells = [
        {"model": "conv", "batch": 128, "parameters": 541108, "rows": lines},
        {"model": "pixelcnn", "batch": 128, "parameters": 35697, "rows": alone},
    ]
    run = {**HERE, **RUN, "versions": {"jax": "1"}}
    earlier = merging.merged({}, {**run, "evaluate": {"rate": 3.0}})
    figures = merging.merged(earlier, {**run, "systems": cells})
    assert figures["evaluate"] == earlier["evaluate"]
    assert make_performance_tables.systems(figures).splitlines()[2:] == [
        "| convolutional VAE | this library | 41 |  | 310.12, 300.00 | 700 |",
        "|  | PyTorch eager | 25.0 | 1.65 (1.55, 1.75) | 310.12, 300.00 | 700 |",
        "| PixelCNN | this library | 2.5 |  | 310.12, 300.00 | 700 |",
    ]


def test_the_state_of_a_task_comes_back():
    params = {"encoder": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "codebook": ()}
    stats = codebook.MovingStats(jnp.full(4, 0.25), jnp.arange(8.0).reshape(4, 2))
    arrays = ours.arrays_of(params, stats)
    names = {"params/encoder/kernel", "params/encoder/bias", "stats/shares", "stats/sums"}
    assert set(arrays) == names
    images = np.zeros((10, 1), np.uint8)
    task = common.Task(3, None, 4, 1, "cpu", 1, 0.1, (0.9, 0.999, 1e-4), images, images, arrays)
    assert task.num_parameters == 9
    blank = jax.tree.map(jnp.zeros_like, TrainState(None, params, (), (), stats))
    restored = ours.initial(blank, task)
    chex.assert_trees_all_equal(restored, {"params": params, "stats": stats})


def test_disagreement_is_an_error():
    training.check_agreement("numpyro", [-100.0, 0.1], [-100.4, 0.1])
    with pytest.raises(RuntimeError, match="another bound"):
        training.check_agreement("numpyro", [-100.0, 0.1], [-101.0, 0.1])
    with pytest.raises(RuntimeError, match="another bound"):
        training.check_agreement("numpyro", [-100.0, 0.1], [float("nan"), 0.1])


def test_unknown_and_missing_peers_are_refused(monkeypatch):
    assert peers.rows("") == []
    assert peers.rows("numpyro,numpyro") == ["numpyro"]
    with pytest.raises(UserError, match="--peers must be one or more of pytorch, pyro.*got 'jax'"):
        peers.rows("numpyro,jax")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'--peers=pyro needs pyro-ppl.*pip install -e "\.\[peers'):
        peers.rows("pyro")


def test_every_row_has_a_module():
    named = [row for _, rows in peers.PEERS.values() for row in rows]
    for row in [*named, *peers.SYSTEM_ROWS.values(), *peers.DRAW_ROWS.values(), peers.OUR_DRAWS]:
        assert importlib.util.find_spec(f"benchmarks.peers.{ROWS[row].module}")


def test_operations_of_a_step():
    # Forward and both backward products of every layer, except the gradient of the images.
    def flop(batch, k):
        return sum(p.flop for p in limits.step_products(batch, k))

    assert [round(flop(20, k) / 1e6, 1) for k in (1, 5, 50)] == [44.6, 143.8, 1260.5]
    assert [round(flop(128, k) / 1e6) for k in (1, 5, 50)] == [285, 920, 8067]


def test_orders_pass_over_all_images():
    images = np.zeros((10, 1), np.uint8)
    task = common.Task(3, 1, 4, 1, "cpu", 1, 0.1, (0.9, 0.999, 1e-4), images, images, {})
    orders = common.orders(task)
    seen = np.concatenate([next(orders) for _ in range(3)])  # 12 batches, 4 passes of 3
    assert seen.shape == (12, 3)
    for batches in seen.reshape(4, 9):
        assert len(set(batches)) == 9


def test_turns_are_interleaved():
    calls = []

    def call(number: int) -> float:
        calls.append(number)
        return float(number)

    turns = [functools.partial(call, number) for number in range(3)]
    np.testing.assert_array_equal(workers.in_turns(turns, 2), [[0, 1, 2], [0, 1, 2]])
    assert calls == [0, 1, 2, 1, 2, 0]
    assert workers.spread(np.array([1.0, 2.0, 3.0])) == {"median": 2.0, "quartiles": [1.5, 2.5]}


def test_a_worker_that_fails_gives_the_reason(tmp_path):
    with pytest.raises(workers.Failed, match="settings.json"):
        workers.Worker(OURS, str(tmp_path), 1)


def test_figures_of_several_commands_make_one_file(tmp_path):
    run = {**HERE, **RUN, "versions": {"jax": "1"}}
    first = merging.merged({}, {**run, "train": [{"batch": 20, "k": 5, "rate": 1.0}]})
    later = {**run, "command": "later", "train": [{"batch": 20, "k": 1, "rate": 2.0}]}
    both = merging.merged(first, {**later, "evaluate": {"rate": 3.0}})
    assert [(c["k"], c["rate"], c["run"]["command"]) for c in both["train"]] == [
        (1, 2.0, "later"),
        (5, 1.0, RUN["command"]),
    ]
    assert both["evaluate"]["run"]["command"] == "later"
    again = merging.merged(both, {**run, "train": [{"batch": 20, "k": 1, "rate": 4.0}]})
    assert [c["rate"] for c in again["train"]] == [4.0, 1.0]
    assert again["evaluate"] == both["evaluate"]


def test_figures_of_another_machine_are_kept_apart(tmp_path):
    assert merging.earlier(None, HERE) == {}
    path = tmp_path / "figures.json"
    assert merging.earlier(str(path), HERE) == {}
    path.write_text('{"device": "cpu, 64 cores"}')
    with pytest.raises(UserError, match="another machine"):
        merging.earlier(str(path), HERE)
    path.write_text("[]")
    with pytest.raises(UserError, match="is not a file of this benchmark"):
        merging.earlier(str(path), HERE)


@pytest.mark.parametrize("text", ["20", "20x", "0x5", "20x5x1", "axb", ""])
def test_cells_are_pairs(text):
    assert parts.cells("20x5,128x1") == [(20, 5), (128, 1)]
    with pytest.raises(UserError, match="--cells must be pairs B x k such as 20x5,128x1"):
        parts.cells(text)


def test_a_task_has_our_parameters(tasks):
    task = tasks[1]
    (kernel, bias), x = task.layers["encoder_0"], task.x[:2]
    assert kernel.shape == (784, 200) and bias.shape == (200,)
    assert jnp.tanh(x @ kernel + bias).shape == (2, 200)
    assert task.batch == 5 and task.platform == jax.default_backend()


def test_the_document_is_up_to_date():
    figures = read_json(make_performance_tables.FIGURES)
    text = make_performance_tables.DOCUMENT.read_text()
    assert make_performance_tables.performance(text, figures) == text
