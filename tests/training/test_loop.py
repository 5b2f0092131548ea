"""The training loop on toy models: visits, calls, exactness, JAX's settings, replicates."""

import contextlib
import functools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, methods, training
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Spec
from elbo_lab.keys import INITIALIZATION, stream_key
from elbo_lab.training import checkpoint, hyper
from elbo_lab.training.lengths import Calls
from elbo_lab.training.loop import PerReplicate
from tests.training.toys import (
    DIMS,
    NUMBER,
    TOY,
    assert_close,
    assert_identical,
    method_of,
    on_device,
    run,
    start,
    striped_images,
    toy_loop,
)

TINY = configs.make(
    latent_dims=(2,),
    hidden_dims=(8,),
    k=3,
    batch_size=5,
    epochs=6,
    log_every=3,
    learning_rate=0.01,
)
SPEC = Spec("image", (4, 4), 2)


@functools.cache
def toy_run(seed: int = 0) -> list:
    # A loop does not depend on the seed: one is compiled for all seeds.
    return run(configs.replace(TINY, seed=seed), toy_loop(TINY), striped_images())


AVERAGED = configs.replace(TINY, ema=0.9, warmup_steps=5)
# Optimizers whose state is more than Adam's, beside the average of the weights.
SHARDED = {
    "adam": AVERAGED,
    "muon": configs.replace(TINY, optimizer="muon", ema=0.9),
    "soap": configs.replace(TINY, optimizer="soap", ema=0.9),
    "schedule_free": configs.replace(TINY, optimizer="schedule_free"),
}


# Visits


def visits(config: Config, number: int) -> np.ndarray:
    """How often each step visits each image, [steps, N]; every call is one step."""
    one_hot = np.eye(number, dtype=np.uint8) * 255
    names = [f"image_{i:02d}" for i in range(number)]

    def loss(key, params, x, hparams):
        seen = {name: x[:, i] for i, name in enumerate(names)}
        return jnp.square(params["w"]) * jnp.ones(len(x)), seen

    method = method_of(lambda key, mean: {"w": jnp.zeros(())}, loss, names)
    config = configs.replace(config, binarization="none", log_every=1)
    records = run(config, training.make_loop(config, method, number), one_hot)
    means = np.array([[r.metrics[name] for name in names] for r in records])
    return np.round(means * config.batch_size).astype(int)


def test_each_pass_visits_every_image_at_most_once_and_all_but_the_remainder():
    counts = visits(configs.replace(TINY, batch_size=3, epochs=4), 11)
    assert counts.shape == (4 * 3, 11)
    assert np.all(counts.sum(axis=1) == 3)
    passes = counts.reshape(4, 3, 11).sum(axis=1)
    assert np.all(passes <= 1)
    assert np.all(passes.sum(axis=1) == 9)


def test_orders_differ_between_passes_and_seeds_but_not_between_runs():
    loop = toy_loop(TINY)
    orders = {
        (seed, epoch): np.asarray(loop.orders(jax.random.key(seed), epoch)[0])
        for seed in range(3)
        for epoch in range(3)
    }
    assert all(sorted(order) == list(range(NUMBER)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 9
    again = training.make_loop(TINY, TOY, NUMBER).orders(jax.random.key(1), 1)[1]
    np.testing.assert_array_equal(again, orders[1, 2])


# Compiled calls


@pytest.mark.parametrize(
    ("number", "batch_size", "epochs", "k", "m"),
    [
        (10_000, 20, 100, 5, 1),
        (10_000, 20, 100, 50, 1),
        (60_000, 128, 30, 1, 1),
        (60, 10, 20, 8, 8),
    ],
)
def test_calls_divide_the_run_and_are_at_most_a_pass(number, batch_size, epochs, k, m):
    config = configs.make(objective="miwae", batch_size=batch_size, epochs=epochs, k=k, m=m)
    call = training.steps_per_call(config, number)
    assert 1 <= call <= number // batch_size
    assert training.total_steps(config, number) % call == 0


@pytest.mark.parametrize(("log_every", "expected"), [(1, 1), (3, 3), (100, 4)])
def test_log_every_sets_the_call_up_to_a_pass(log_every, expected):
    config = configs.replace(TINY, log_every=log_every)
    assert training.steps_per_call(config, NUMBER) == expected


def test_calls_lie_on_boundaries_counted_from_step_0_and_end_with_the_run():
    config = configs.replace(TINY, epochs=5)  # 20 steps
    state = on_device(toy_run()[3].state)
    steps = [record.step for record in run(config, toy_loop(TINY), striped_images(), state)]
    assert steps == [15, 18, 20]


def test_the_step_is_traced_a_fixed_number_of_times():
    """New calls, resuming and other values of hyper-parameters cause no new trace."""
    config, images = configs.replace(TINY, objective="beta_vae", beta=2.0), striped_images()
    traces = 0

    def counted(*args):
        nonlocal traces
        traces += 1
        return TOY.loss(*args)

    loop = training.make_loop(config, TOY._replace(loss=counted), NUMBER)
    saved = run(config, loop, images)
    assert len(saved) == 8
    assert traces == 1
    for other in (config, configs.replace(config, learning_rate=0.5, beta=0.25)):
        run(other, loop, images, on_device(saved[3].state))
    run(config, loop, images)
    assert traces == 1


# Exactness


@pytest.mark.parametrize("config", [TINY, AVERAGED], ids=["plain", "averaged"])
def test_resuming_at_any_boundary_equals_never_having_stopped(config):
    whole = run(config, toy_loop(config), striped_images())
    for i in range(len(whole)):
        rest = run(config, toy_loop(config), striped_images(), on_device(whole[i].state))
        assert [r.step for r in rest] == [r.step for r in whole[i + 1 :]]
        assert_identical([r.metrics for r in rest], [r.metrics for r in whole[i + 1 :]])
        assert_identical([r.state for r in rest], [r.state for r in whole[i + 1 :]])


@pytest.mark.slow
def test_the_length_of_calls_changes_the_grouping_of_metrics_and_nothing_else():
    config = configs.replace(TINY, log_every=1)
    single, whole = run(config, toy_loop(config), striped_images()), toy_run()
    assert_close(single[-1].state.params, whole[-1].state.params)
    for name in ("bound", "kl"):
        each = np.array([r.metrics[name] for r in single]).reshape(-1, 3)
        grouped = np.array([r.metrics[name] for r in whole])
        np.testing.assert_allclose(grouped, each.mean(axis=1), rtol=1e-5)


def test_initial_parameters_do_not_depend_on_the_options_of_their_compilation():
    config = configs.make(model="conv", channels=(3,), latent_dims=(2,), k=3, batch_size=5)
    method = methods.make(config, SPEC, NUMBER)
    x = jax.random.bernoulli(jax.random.key(1), 0.3, (5, 16)).astype(jnp.float32)
    base_key = training.base_keys(training.replicas(config))
    state = training.make_loop(config, method, NUMBER).init(base_key, Batch(x))
    key = stream_key(jax.random.clone(base_key), INITIALIZATION)
    params, _ = jax.jit(method.init)(key, Batch(x))
    chex.assert_trees_all_equal(state.params, params)


def test_the_seed_changes_the_result():
    assert not np.allclose(toy_run(1)[-1].metrics["bound"], toy_run(0)[-1].metrics["bound"])


@pytest.mark.slow
def test_the_loss_of_a_real_model_falls():
    config = configs.replace(TINY, epochs=120, log_every=None)
    method = methods.make(config, SPEC, NUMBER)
    records = run(config, training.make_loop(config, method, NUMBER), striped_images())
    assert all(set(r.metrics) == {"bound", "kl", "reconstruction"} for r in records)
    bounds = [record.metrics["bound"] for record in records]
    # Independent pixels cost about 16 log 2 = 11 nats; knowing the lit half saves most of them.
    assert bounds[0] < -10
    assert np.mean(bounds[-5:]) > np.mean(bounds[:5]) + 2


def test_everything_is_float32_and_steps_are_int32():
    record = toy_run()[-1]
    assert {leaf.dtype for leaf in jax.tree.leaves(record.state.params)} == {np.dtype("float32")}
    assert {value.dtype for value in record.metrics.values()} == {np.dtype("float32")}
    assert record.state.step.dtype == np.int32
    assert int(record.state.step) == record.step == 24
    assert int(record.failed_at) == -1


# JAX's settings

SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "rbg": lambda: jax.default_prng_impl("rbg"),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.mark.parametrize("setting", ["default", *SETTINGS])
@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(replicates=2, lr_schedule="burda", adam_nu_start=1.0, adam_eps_hat=True),
        dict(objective="beta_vae", beta="cosine:0:1:9", lr_schedule="constant", clip_norm=1.0),
        dict(optimizer="muon", ema=0.9, warmup_steps=3, replicates=2),
        dict(optimizer="schedule_free", warmup_steps=3, clip_norm=1.0),
    ],
    ids=["defaults", "replicates", "course", "muon", "schedule_free"],
)
def test_the_types_of_the_state_are_those_before_a_call(setting, options):
    """A state saved after any call can start a run."""
    config = configs.replace(TINY, **options)
    with SETTINGS.get(setting, contextlib.nullcontext)():
        loop = training.make_loop(config, TOY, NUMBER)
        base_keys = training.base_keys(training.replicas(config))
        hparams = hyper.hyperparameters(training.replicas(config))
        mean = jnp.zeros(DIMS)
        state = loop.shapes(base_keys, Batch(mean[None]), mean)
        assert state.failure.step.dtype == np.int32
        flags = jax.tree.leaves(state.failure.is_finite)
        assert {leaf.dtype for leaf in flags} == {np.dtype("bool")} and len(flags) == 3 + 3
        inputs = PerReplicate(None, base_keys, hparams)
        orders = jax.eval_shape(loop.orders, base_keys, 0)
        images = jax.ShapeDtypeStruct((NUMBER, DIMS), jnp.uint8)
        lead = (2,) if config.replicates > 1 else ()
        batches = jax.ShapeDtypeStruct((*lead, 3, 5, DIMS), jnp.uint8)
        in_memory = inputs._replace(orders=orders), Batch(images)
        streamed = inputs._replace(batches=Batch(batches)), None
        for data in (in_memory, streamed):
            call = functools.partial(loop.run, num_steps=3)
            after, _ = jax.eval_shape(call, state, *data)
            assert jax.tree.structure(after) == jax.tree.structure(state)
            assert types(after) == types(state)


def types(tree) -> list:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_of_ours_starts_in_float32_under_each_setting(setting):
    with SETTINGS[setting]():
        loop = training.make_loop(TINY, methods.make(TINY, SPEC, NUMBER), NUMBER)
        base_keys = training.base_keys(training.replicas(TINY))
        # float64 under x64, as NumPy's mean is.
        mean = np.zeros(DIMS)
        state = loop.shapes(base_keys, Batch(jnp.zeros((1, DIMS), jnp.float32)), mean)
        numbers = {leaf.dtype for leaf in jax.tree.leaves(state._replace(failure=None))}
        assert numbers == {np.dtype("float32"), np.dtype("int32")}
        assert {leaf.dtype for leaf in jax.tree.leaves(state.failure)} == {
            np.dtype("bool"),
            np.dtype("int32"),
        }


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_saved_run_goes_on_to_the_same_bits_under_each_setting(setting, tmp_path):
    with SETTINGS[setting]():
        config = configs.replace(TINY, epochs=3)
        loop = training.make_loop(config, methods.make(config, SPEC, NUMBER), NUMBER)
        whole = run(config, loop, striped_images())
        fresh, base_keys = start(config, loop, striped_images())
        checkpoint.save(tmp_path, whole[1].step, (on_device(whole[1].state), base_keys))
        step, (state, stored) = checkpoint.restore(tmp_path, (fresh, base_keys))
        assert step == whole[1].step and stored.dtype == base_keys.dtype
        rest = run(config, loop, striped_images(), state)
        assert_identical([r.metrics for r in rest], [r.metrics for r in whole[2:]])
        assert_identical([r.state for r in rest], [r.state for r in whole[2:]])


# Replicates


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": 0.9, "warmup_steps": 5},  # as `AVERAGED`, whose loop is compiled
        pytest.param({"optimizer": "muon", "ema": 0.9}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "soap", "ema": 0.9}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "schedule_free"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_replicates_equal_single_runs_of_consecutive_seeds(options):
    single = configs.replace(TINY, **options)
    config = configs.replace(single, replicates=3)
    together = run(config, toy_loop(config), striped_images())
    for r in range(3):
        alone = run(configs.replace(single, seed=r), toy_loop(single), striped_images())
        for a, b in zip(together, alone, strict=True):
            assert a.step == b.step
            replicate = jax.tree.map(lambda leaf, r=r: leaf[r], a.state._replace(step=np.zeros(3)))
            assert_close(replicate[1:], b.state[1:])
            for name, values in b.metrics.items():
                assert a.metrics[name].shape == (3,)
                np.testing.assert_allclose(a.metrics[name][r], values, rtol=1e-5)


@pytest.mark.slow
def test_replicates_sharded_over_two_devices_equal_single_runs(tmp_path):
    script = f"""
        import jax
        jax.config.update("jax_num_cpu_devices", 2)
        import numpy as np
        from elbo_lab import configs, training
        from elbo_lab.data import Batch
        from tests.training import test_loop, toys
        assert jax.device_count() == 2
        images = toys.striped_images()
        data = Batch(jax.numpy.asarray(images))
        for name, single in test_loop.SHARDED.items():
            config = configs.replace(single, replicates=2)
            loop = toys.toy_loop(config)
            state, base_keys = toys.start(config, loop, images)
            *_, record = training.fit(config, loop, data, state, base_keys)
            leaves = jax.tree.leaves(record.state[1:])
            assert all(len(leaf.sharding.device_set) == 2 for leaf in leaves)
            np.savez(f"{tmp_path}/{{name}}.npz", *leaves)
    """
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=environment)
    for name, single in SHARDED.items():
        with np.load(tmp_path / f"{name}.npz") as file:
            leaves = [file[leaf] for leaf in file.files]
        for r in range(2):
            config = configs.replace(single, seed=r)
            state = run(config, toy_loop(single), striped_images())[-1].state
            assert_close([leaf[r] for leaf in leaves], jax.tree.leaves(state[1:]))


@pytest.mark.parametrize("step", [0, 1, 5, 6, 11, 16, 17])
def test_calls_end_at_multiples_and_at_the_end(step):
    calls = Calls(step, 17, 6)
    assert len(calls) == len(list(calls))
    ends = [end for _, end in calls]
    assert ends == [end for end in (6, 12, 17) if end > step]
    assert [start for start, _ in calls] == [step, *ends][: len(ends)]
    with pytest.raises(IndexError):
        calls[len(calls)]
