"""Optimizers against their formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.optimizer_options import OPTIMIZER_OPTIONS
from elbo_lab.training import optimizer
from elbo_lab.training.step import Failure, TrainState

STEPS = 30


def updates_of(config: Config, gradients: dict[str, np.ndarray], rates: np.ndarray) -> dict:
    """The library's updates for a sequence of gradients, both name -> [T, *shape]."""
    tx = optimizer.make(config)
    params = {name: jnp.zeros(array.shape[1:]) for name, array in gradients.items()}

    def step(state, inputs):
        t, rate, grads = inputs
        updates, state = tx.update(grads, state, params, learning_rate=rate, step=t)
        return state, updates

    inputs = jnp.arange(len(rates)), jnp.asarray(rates, jnp.float32)
    grads = {name: jnp.asarray(array, jnp.float32) for name, array in gradients.items()}
    return jax.jit(lambda: jax.lax.scan(step, tx.init(params), (*inputs, grads))[1])()


def directions(config: Config, gradients: np.ndarray) -> np.ndarray:
    """Minus the library's updates at a learning rate of 1, [T, P]."""
    return -np.asarray(updates_of(config, {"w": gradients}, np.ones(len(gradients)))["w"])


def adam(gradients: np.ndarray, b1: float, b2: float, eps: float, hat: bool, nu: float):
    """Kingma and Ba (2015): algorithm 1, or the form at the end of its section 2."""
    m, nu, steps = np.zeros(gradients.shape[1:]), np.full(gradients.shape[1:], nu), []
    for t, g in enumerate(np.asarray(gradients, np.float64), 1):
        m, nu = b1 * m + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
        if hat:
            steps.append(np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(nu) + eps))
        else:
            steps.append(m / (1 - b1**t) / (np.sqrt(nu / (1 - b2**t)) + eps))
    return np.stack(steps)


@pytest.mark.parametrize("hat", [False, True])
@pytest.mark.parametrize("nu", [0.0, 1.0])
@pytest.mark.parametrize("b1", [0.9, 0.99])
def test_every_form_of_adam(hat, nu, b1):
    gradients = np.random.default_rng(0).normal(0, 1e-3, (STEPS, 5))
    config = configs.replace(
        Config(), adam_b1=b1, adam_eps=1e-4, adam_eps_hat=hat, adam_nu_start=nu
    )
    got = directions(config, gradients)
    # 1 - b2^t in float32 is known to 1e-7 / 1e-3 at the first step.
    np.testing.assert_allclose(got, adam(gradients, b1, 0.999, 1e-4, hat, nu), rtol=5e-4)


def test_the_forms_differ():
    gradients = np.random.default_rng(0).normal(0, 1e-3, (STEPS, 5))
    plain, hat = (directions(configs.replace(Config(), adam_eps_hat=h), gradients) for h in (0, 1))
    assert np.abs(plain / hat - 1).max() > 0.5


def test_gradients_are_clipped_before_adam():
    config = configs.replace(Config(), clip_norm=1.0)
    gradients = np.array([[30.0, 40.0]])
    np.testing.assert_allclose(
        directions(config, gradients), adam(gradients / 50, 0.9, 0.999, 1e-4, False, 0.0), rtol=5e-4
    )


# The other optimizers. Gradients, and rates that change from step to step.

RATES = np.array([0.1, 0.5, 0.25, 0.05])
GRADIENTS = np.random.default_rng(1).normal(size=(len(RATES), 5))


def test_adamax():
    config = configs.make(optimizer="adamax", adam_b1=0.8, adam_b2=0.7, adam_eps=1e-2)
    m, u, expected = np.zeros(5), np.zeros(5), []
    for t, (g, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), 1):
        m, u = 0.8 * m + 0.2 * g, np.maximum(0.7 * u, np.abs(g) + 1e-2)
        expected.append(-rate * m / (1 - 0.8**t) / u)
    got = updates_of(config, {"w": GRADIENTS}, RATES)["w"]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(momentum, nesterov):
    config = configs.make(optimizer="sgd", momentum=momentum, nesterov=nesterov)
    v, expected = np.zeros(5), []
    for g, rate in zip(GRADIENTS, RATES, strict=True):
        v = g + momentum * v
        expected.append(-rate * (g + momentum * v if nesterov else v))
    got = updates_of(config, {"w": GRADIENTS}, RATES)["w"]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def orthogonalized(x: np.ndarray) -> np.ndarray:
    """Three quintic Newton-Schulz iterations of Muon's public code, for at most as many rows as
    columns.
    """
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(3):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("rms", [None, 0.2])
@pytest.mark.slow
def test_muon(rms):
    """Kernels are matrices of [all axes but the last, last axis], vectors are left to Adam."""
    rng = np.random.default_rng(2)
    shapes = {"wide": (2, 7), "kernel": (2, 2, 3), "bias": (5,)}
    gradients = {name: rng.normal(size=(4, *shape)) for name, shape in shapes.items()}
    config = configs.make(optimizer="muon", muon_beta=0.8, muon_steps=3, muon_rms=rms, adam_b2=0.99)
    got = updates_of(config, gradients, RATES)
    for name in ("wide", "kernel"):
        columns, m = shapes[name][-1], 0.0
        for t, (g, rate) in enumerate(zip(gradients[name], RATES, strict=True), 1):
            g = g.reshape(-1, columns)
            m = 0.8 * m + 0.2 * g
            # Nesterov's momentum: the average as it would be after this gradient once more.
            ahead = 0.8 * m / (1 - 0.8 ** (t + 1)) + 0.2 * g / (1 - 0.8**t)
            is_tall = len(g) > columns
            direction = orthogonalized(ahead.T).T if is_tall else orthogonalized(ahead)
            scale = np.sqrt(max(1, columns / len(g)))
            scale = scale if rms is None else rms * np.sqrt(max(g.shape))
            own = np.asarray(got[name][t - 1]).reshape(g.shape)
            np.testing.assert_allclose(own, -rate * scale * direction, rtol=1e-3, atol=1e-5)
    m, v = np.zeros(5), np.zeros(5)
    for t, (g, rate) in enumerate(zip(gradients["bias"], RATES, strict=True), 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        ahead = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        expected = -rate * ahead / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        np.testing.assert_allclose(got["bias"][t - 1], expected, rtol=1e-4)


def slopes(y: np.ndarray) -> np.ndarray:
    """The gradient of sum(y^2 (1, 2, 3)) / 2."""
    return y * np.arange(1, 4)


def schedule_free(start: np.ndarray, b1: float, power: float) -> tuple[np.ndarray, np.ndarray]:
    """x and y after the steps of RATES (Defazio et al. 2024, algorithm 1, without momentum)."""
    x = y = z = start
    v, total = np.zeros(3), 0.0
    for t, rate in enumerate(RATES, 1):
        g = slopes(y)
        v = 0.99 * v + 0.01 * g**2
        z = z - rate * g / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        weight = max(RATES[:t]) ** power
        total += weight
        x = x + weight / total * (z - x)
        y = (1 - b1) * z + b1 * x
    return x, y


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1e6, "schedule_free_power": 1.0}], ids=str)
def test_schedule_free_is_evaluated_at_its_average(options):
    """A single run, and two replicates."""
    settings = {"schedule_free_b1": 0.8, "adam_b2": 0.99} | options
    config = configs.make(optimizer="schedule_free", **settings)
    tx = optimizer.make(config)
    starts = np.array([[0.5, -1.0, 2.0], [1.0, 3.0, -2.0]])

    def trained(params):
        def step(carry, inputs):
            params, state = carry
            t, rate = inputs
            grads = slopes(params)
            updates, state = tx.update(grads, state, params, learning_rate=rate, step=t)
            return (params + updates, state), None

        inputs = jnp.arange(len(RATES)), jnp.asarray(RATES, jnp.float32)
        params, state = jax.lax.scan(step, (params, tx.init(params)), inputs)[0]
        return TrainState(None, params, state, Failure.none(()))

    states = jax.jit(jax.vmap(trained))(jnp.asarray(starts, jnp.float32))
    together = optimizer.evaluation_params(configs.replace(config, replicates=2), states)
    for r in range(2):
        state = jax.tree.map(lambda leaf, r=r: leaf[r], states)
        x, y = schedule_free(starts[r], 0.8, settings.get("schedule_free_power", 2.0))
        np.testing.assert_allclose(state.params, y, rtol=1e-4, atol=1e-5)
        alone = optimizer.evaluation_params(config, state)
        np.testing.assert_allclose(alone, x, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(together[r], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [None, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OPTIMIZER_OPTIONS)
def test_every_optimizer_lowers_a_loss_and_is_deterministic(name, clip_norm):
    config = configs.replace(Config(), optimizer=name, clip_norm=clip_norm)
    target = np.random.default_rng(3).normal(size=(4, 3))
    params = {"w": jnp.zeros((4, 3)), "b": jnp.ones(())}

    def loss(params):
        return jnp.sum(jnp.square(params["w"] - target)) + jnp.square(params["b"])

    tx = optimizer.make(config)

    def step(carry, t):
        params, state = carry
        grads = jax.grad(loss)(params)
        rate = jnp.float32(0.05)
        updates, state = tx.update(grads, state, params, learning_rate=rate, step=t)
        return (jax.tree.map(jnp.add, params, updates), state), None

    @jax.jit
    def train(params):
        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(40))[0]

    trained, state = train(params)
    same, _ = train(params)
    before = jax.eval_shape(tx.init, params)
    assert jax.tree.structure(state) == jax.tree.structure(before)
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [
        leaf.dtype for leaf in jax.tree.leaves(before)
    ]
    jax.tree.map(np.testing.assert_array_equal, trained, same)
    whole = TrainState(None, trained, state, Failure.none(()))
    assert loss(optimizer.evaluation_params(config, whole)) < 0.5 * loss(params)


# The encoder alone, between the steps of decoder and prior.

EVERY = 3
NETWORKS = ("encoder", "decoder", "prior")


def network_gradients(steps: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(0, 1e-2, (steps, 4, 3)) for name in NETWORKS}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "adam" else pytest.param(name, marks=pytest.mark.slow)
        for name in OPTIMIZER_OPTIONS
        if name != "schedule_free"
    ],
)
def test_decoder_and_prior_move_at_every_nth_step_as_if_there_were_no_others(name):
    """The encoder's updates are those of all gradients, the others' those of every third one."""
    steps = 4 * EVERY + 1
    gradients, rates = network_gradients(steps), np.linspace(1.0, 0.4, steps)
    config = configs.make(optimizer=name, encoder_steps=EVERY)
    got = updates_of(config, gradients, rates)
    own = np.arange(EVERY - 1, steps, EVERY)
    for network in NETWORKS:
        taken = np.arange(steps) if network == "encoder" else own
        expected = np.zeros((steps, 4, 3))
        if name == "adam":
            moved = adam(gradients[network][taken], 0.9, 0.999, 1e-4, False, 0.0)
            expected[taken] = -rates[taken, None, None] * moved
        else:
            alone = updates_of(
                configs.make(optimizer=name), {"w": gradients[network][taken]}, rates[taken]
            )
            expected[taken] = alone["w"]
        np.testing.assert_allclose(got[network], expected, rtol=1e-3, atol=1e-6)
        assert not np.any(np.delete(np.asarray(got[network]), taken, axis=0))


@pytest.mark.parametrize("clip_norm", [None, pytest.param(0.1, marks=pytest.mark.slow)])
def test_between_their_steps_no_bit_of_decoder_and_prior_changes(clip_norm):
    tx = optimizer.make(configs.make(encoder_steps=EVERY, clip_norm=clip_norm))
    grads = jax.tree.map(lambda g: jnp.asarray(g[0], jnp.float32), network_gradients(1))
    params = jax.tree.map(lambda g: jnp.ones_like(g) / 3, grads)

    @jax.jit
    def step(params, state, t):
        updates, state = tx.update(grads, state, params, learning_rate=jnp.float32(1e-3), step=t)
        return jax.tree.map(jnp.add, params, updates), state

    state = jax.jit(tx.init)(params)
    for t in range(2 * EVERY):
        before, (params, state) = (params, state), step(params, state, jnp.int32(t))
        own = (partition_of(s, clip_norm).inner_states["generation"] for s in (before[1], state))
        old, new = (
            jax.tree.leaves((s, p["decoder"], p["prior"]))
            for s, p in zip(own, (before[0], params), strict=True)
        )
        same = [np.array_equal(a, b) for a, b in zip(old, new, strict=True)]
        assert not any(same) if t % EVERY == EVERY - 1 else all(same), t
        assert np.any(params["encoder"] != before[0]["encoder"])


def partition_of(state, clip_norm):
    """The state of the two parts; a chain has one for each of its parts, and clipping is first."""
    return state if clip_norm is None else state[1]


def test_a_learned_baseline_and_a_discriminator_move_as_the_encoder():
    gradients = {name: np.ones((2, 3)) for name in ("encoder", "baseline", "critic", "decoder")}
    got = updates_of(configs.make(encoder_steps=2, optimizer="sgd"), gradients, np.ones(2))
    moved = {name: np.any(np.asarray(u) != 0, axis=1).tolist() for name, u in got.items()}
    both, last = [True, True], [False, True]
    assert moved == {"encoder": both, "baseline": both, "critic": both, "decoder": last}
