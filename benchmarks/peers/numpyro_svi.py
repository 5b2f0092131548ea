"""NumPyro: SVI whose updates are scanned in one compiled call, particles vectorized."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.module import flax_module
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO

from benchmarks.peers.common import DATA_DIM, DRAWS, HIDDEN, LATENT, Peer, Task, orders

# Draws and images of an evaluation's pass.
EVALUATED = 50, 20


class Encoder(nn.Module):
    """x [*batch, 784] -> mean and standard deviation, [*batch, 50] each."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        h = jnp.tanh(nn.Dense(HIDDEN, name="encoder_0")(x))
        h = jnp.tanh(nn.Dense(HIDDEN, name="encoder_1")(h))
        return nn.Dense(LATENT, name="mean")(h), jnp.exp(nn.Dense(LATENT, name="log_std")(h))


class Decoder(nn.Module):
    """z [*batch, 50] -> logits [*batch, 784]."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = jnp.tanh(nn.Dense(HIDDEN, name="decoder_0")(z))
        h = jnp.tanh(nn.Dense(HIDDEN, name="decoder_1")(h))
        return nn.Dense(DATA_DIM, name="logits")(h)


def model(x: Array) -> None:
    """z ~ N(0, 1), x ~ Bernoulli; x [n, 784]."""
    decoder = flax_module("decoder", Decoder(), input_shape=(1, LATENT))
    with numpyro.plate("images", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)


def guide(x: Array) -> None:
    """z ~ q(z|x)."""
    encoder = flax_module("encoder", Encoder(), input_shape=(1, DATA_DIM))
    with numpyro.plate("images", x.shape[0]):
        mean, std = encoder(x)
        numpyro.sample("z", dist.Normal(mean, std).to_event(1))


def objective(k: int) -> Trace_ELBO | RenyiELBO:
    """The ELBO for one draw; for more, the Renyi bound of order 0, which is the IWAE bound."""
    return Trace_ELBO() if k == 1 else RenyiELBO(alpha=0, num_particles=k)


def make(task: Task) -> Peer:
    """`lax.scan` over SVI.update with the state donated."""
    b1, b2, epsilon = task.adam
    # The loss is a sum over the batch: with epsilon times B, Adam's steps are those of the mean.
    adam = numpyro.optim.Adam(task.learning_rate, b1=b1, b2=b2, eps=epsilon * task.batch)
    svi = SVI(model, guide, adam, objective(task.k))
    images, x = jnp.asarray(task.images), jnp.asarray(task.x)
    names = {"encoder": ("encoder_0", "encoder_1", "mean", "log_std")}
    names["decoder"] = ("decoder_0", "decoder_1", "logits")
    layers = {n: {"kernel": kernel, "bias": bias} for n, (kernel, bias) in task.layers.items()}
    params = {f"{network}$params": {n: layers[n] for n in own} for network, own in names.items()}
    start = svi.init(jax.random.key(0), x[:1])
    start = start._replace(optim_state=adam.init(jax.tree.map(jnp.asarray, params)))
    keys = iter(jax.random.split(jax.random.key(1), 100_000))

    def update(state, given):
        key, indices = given
        x = jax.random.bernoulli(key, images[indices] / 255.0).astype(jnp.float32)
        return svi.update(state, x)

    def many(state, key, indices):
        return jax.lax.scan(update, state, (jax.random.split(key, task.steps), indices))

    many = jax.jit(many, donate_argnums=0)
    now, batches = {"state": start}, orders(task)

    def train() -> float:
        now["state"], losses = many(now["state"], next(keys), jnp.asarray(next(batches), jnp.int32))
        return float(losses[-1])

    @jax.jit
    def bound(key, params):
        return -svi.loss.loss(key, params, model, guide, x) / len(x)

    @jax.jit
    def log_likelihood(key, params, x):
        draws, _ = EVALUATED
        some = objective(draws)

        def chunk(total: Array, key: Array):
            # One image at a time under vmap, so that a loss is an image's.
            of_image = lambda key, x: -some.loss(key, params, model, guide, x[None])  # noqa: E731
            found = jax.vmap(of_image)(jax.random.split(key, len(x)), x)
            return jnp.logaddexp(total, found), None

        chunks = DRAWS // draws
        total, _ = jax.lax.scan(chunk, jnp.full(len(x), -jnp.inf), jax.random.split(key, chunks))
        return total - jnp.log(chunks)

    def evaluate(images: np.ndarray) -> float:
        params, size = svi.get_params(now["state"]), EVALUATED[1]
        parts = [
            log_likelihood(next(keys), params, jnp.asarray(images[i : i + size]))
            for i in range(0, len(images), size)
        ]
        return float(np.mean(np.concatenate(parts)))

    return Peer(train, lambda: float(bound(next(keys), svi.get_params(now["state"]))), evaluate)
