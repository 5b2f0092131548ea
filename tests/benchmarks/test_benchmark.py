"""The benchmark: what it asks, how its figures are kept, and that peers compute what we do. No time
is asserted.
"""

import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import limits, merging, parts, peers, systems, training, workers
from benchmarks.peers import OURS, ROWS, common
from elbo_lab.errors import UserError
from elbo_lab.files import read_json
from tools import make_performance_tables

HERE = {"device": "cpu, 2 cores", "processor": "a processor", "machine": "x86_64"}
RUN = {"command": "python -m experiments.benchmark", "date": "2026-01-02", "python": "3.11"}
DRAWS = 40


def made(row: str, task: common.Task) -> common.Peer:
    module = importlib.import_module(f"benchmarks.peers.{ROWS[row].module}")
    return module.make(task, **ROWS[row].options)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Small tasks by k, all of the same parameters."""
    made_ = {}
    for k in (1, 3):
        with workers.task_folder(5, k, num_images=60) as folder:
            made_[k] = common.read_task(folder, steps=7, replicates=1)
    return made_


def bound_of(peer: common.Peer) -> list[float]:
    return training.mean_and_error([peer.bound() for _ in range(DRAWS)])


def likelihood_of(peer: common.Peer, task: common.Task) -> list[float]:
    """Mean and error of 8 values of L_5000 of 4 images."""
    return training.mean_and_error([peer.log_likelihood(task.x[:4]) for _ in range(8)])


def gain(peer: common.Peer) -> float:
    """What 4 calls of 7 steps of Adam add to the bound, nats."""
    before = bound_of(peer)[0]
    for _ in range(4):
        peer.train()
    return bound_of(peer)[0] - before


def agree(row: str, task: common.Task) -> None:
    """Bounds at the same parameters, and after some training, and L_5000."""
    ours, theirs = made(OURS, task), made(row, task)
    training.check_agreement(row, bound_of(ours), bound_of(theirs))
    # Far from a good posterior, an image's L_5000 varies by more than a nat from draw to draw.
    training.check_agreement(row, likelihood_of(ours, task), likelihood_of(theirs, task))
    gains = gain(ours), gain(theirs)
    # They see different binary images and draws.
    assert gains[0] > 2
    assert abs(gains[0] - gains[1]) < 0.25 * gains[0], gains


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("row", ["numpyro", "pytorch", "pyro", "pythae"])
def test_peers_compute_and_train_as_we_do(tasks, row, k):
    package = {"pytorch": "torch"}.get(row, row)
    pytest.importorskip(package, exc_type=ImportError)
    agree(row, tasks[k])


@pytest.mark.slow
@pytest.mark.parametrize("model", systems.SYSTEMS)
def test_pytorch_trains_the_other_models_as_we_do(model):
    pytest.importorskip("torch", exc_type=ImportError)
    k = systems.SYSTEMS[model].k
    with workers.task_folder(8, k, num_images=8, model=model) as folder:
        task = common.read_task(folder, steps=1, replicates=1)
    # Binary images, all of them in every batch: without draws, both take the same steps.
    x = task.x[:8]
    images = (255 * x).astype(np.uint8)
    task = task._replace(x=x, images=images, learning_rate=3e-3)
    peers_ = made(OURS, task), made("pytorch_systems", task)
    starts = [bound_of(peer) for peer in peers_]
    training.check_agreement("pytorch_systems", *starts)
    for peer in peers_:
        for _ in range(6):
            peer.train()
    gains = [bound_of(peer)[0] - start[0] for peer, start in zip(peers_, starts, strict=True)]
    assert gains[0] > 1
    # The VAE's differ by the draws from its posterior.
    np.testing.assert_allclose(gains[1], gains[0], rtol=0.3 if k else 0.01)
    wrong = task._replace(arrays={**task.arrays, "params/another": np.zeros(1)})
    with pytest.raises(RuntimeError, match=f"{model} has .* parameters here and .* in the library"):
        made("pytorch_systems", wrong)


def test_disagreement_is_an_error():
    training.check_agreement("numpyro", [-100.0, 0.1], [-100.4, 0.1])
    with pytest.raises(RuntimeError, match="another bound"):
        training.check_agreement("numpyro", [-100.0, 0.1], [-101.0, 0.1])
    with pytest.raises(RuntimeError, match="another bound"):
        training.check_agreement("numpyro", [-100.0, 0.1], [float("nan"), 0.1])


def test_peers_are_named_and_installed(monkeypatch):
    assert peers.rows("") == []
    assert peers.rows("numpyro,numpyro") == ["numpyro"]
    with pytest.raises(UserError, match="--peers must be of pytorch, pyro.*got 'jax'"):
        peers.rows("numpyro,jax")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'--peers=pyro needs pyro-ppl.*pip install -e "\.\[peers'):
        peers.rows("pyro")


def test_every_line_has_a_module():
    for row in [row for _, rows in peers.PEERS.values() for row in rows]:
        assert importlib.util.find_spec(f"benchmarks.peers.{ROWS[row].module}")


def test_operations_of_a_step():
    # Forward and both backward products of every layer, but for the images' gradient.
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
    told = []
    turns = [lambda i=i: told.append(i) or float(i) for i in range(3)]
    found = workers.in_turns(turns, 2)
    np.testing.assert_array_equal(found, [[0, 1, 2], [0, 1, 2]])
    assert told == [0, 1, 2, 1, 2, 0]
    assert workers.spread(np.array([1.0, 2.0, 3.0])) == {"median": 2.0, "quartiles": [1.5, 2.5]}


def test_a_worker_that_fails_says_why(tmp_path):
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
    with pytest.raises(UserError, match="no file of this benchmark"):
        merging.earlier(str(path), HERE)


@pytest.mark.parametrize("text", ["20", "20x", "0x5", "20x5x1", "axb", ""])
def test_cells_are_pairs(text):
    assert parts.cells("20x5,128x1") == [(20, 5), (128, 1)]
    with pytest.raises(UserError, match="--cells must be like"):
        parts.cells(text)


def test_our_parameters_reach_the_peers(tasks):
    task = tasks[1]
    (kernel, bias), x = task.layers["encoder_0"], task.x[:2]
    assert kernel.shape == (784, 200) and bias.shape == (200,)
    assert jnp.tanh(x @ kernel + bias).shape == (2, 200)
    assert task.batch == 5 and task.platform == jax.default_backend()


def test_the_documents_are_up_to_date():
    found = read_json(make_performance_tables.FIGURES)
    for path, make in make_performance_tables.DOCUMENTS.items():
        assert make(path.read_text(), found) == path.read_text()
