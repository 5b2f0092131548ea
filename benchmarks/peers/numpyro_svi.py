"""NumPyro: SVI with vectorized particles, whose updates are scanned in one compiled call."""

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

# Draws and images of one pass of the evaluation.
PASS_DRAWS, PASS_IMAGES = 50, 20


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
    """The ELBO for one draw; for more draws the Renyi bound of order 0, which is the IWAE bound."""
    return Trace_ELBO() if k == 1 else RenyiELBO(alpha=0, num_particles=k)


def make(task: Task) -> Peer:
    """A peer whose `train` is a `lax.scan` over SVI.update with a donated state."""
    b1, b2, epsilon = task.adam
    # The loss is a sum over the batch. With epsilon times B, Adam takes the steps of the mean.
    adam = numpyro.optim.Adam(task.learning_rate, b1=b1, b2=b2, eps=epsilon * task.batch)
    svi = SVI(model, guide, adam, objective(task.k))
    images, x = jnp.asarray(task.images), jnp.asarray(task.x)
    names = {"encoder": ("encoder_0", "encoder_1", "mean", "log_std")}
    names["decoder"] = ("decoder_0", "decoder_1", "logits")
    layers = {n: {"kernel": kernel, "bias": bias} for n, (kernel, bias) in task.layers.items()}
    params = {
        f"{network}$params": {name: layers[name] for name in layer_names}
        for network, layer_names in names.items()
    }
    start = svi.init(jax.random.key(0), x[:1])
    start = start._replace(optim_state=adam.init(jax.tree.map(jnp.asarray, params)))
    keys = iter(jax.random.split(jax.random.key(1), 100_000))

    def update(state, inputs):
        key, indices = inputs
        x = jax.random.bernoulli(key, images[indices] / 255.0).astype(jnp.float32)
        return svi.update(state, x)

    def take_steps(state, key, indices):
        return jax.lax.scan(update, state, (jax.random.split(key, task.steps), indices))

    take_steps = jax.jit(take_steps, donate_argnums=0)
    current, batches = {"state": start}, orders(task)

    def train() -> float:
        indices = jnp.asarray(next(batches), jnp.int32)
        current["state"], losses = take_steps(current["state"], next(keys), indices)
        return float(losses[-1])

    @jax.jit
    def bound(key, params):
        return -svi.loss.loss(key, params, model, guide, x) / len(x)

    @jax.jit
    def log_likelihood(key, params, x):
        chunk_bound = objective(PASS_DRAWS)

        def image_bound(key: Array, image: Array) -> Array:
            return -chunk_bound.loss(key, params, model, guide, image[None])

        def chunk(total: Array, key: Array):
            # Losses are sums over a batch: vmap over batches of one image gives each image's.
            values = jax.vmap(image_bound)(jax.random.split(key, len(x)), x)
            return jnp.logaddexp(total, values), None

        num_chunks = DRAWS // PASS_DRAWS
        chunk_keys = jax.random.split(key, num_chunks)
        total, _ = jax.lax.scan(chunk, jnp.full(len(x), -jnp.inf), chunk_keys)
        return total - jnp.log(num_chunks)

    def evaluate(images: np.ndarray) -> float:
        params = svi.get_params(current["state"])
        parts = [
            log_likelihood(next(keys), params, jnp.asarray(images[i : i + PASS_IMAGES]))
            for i in range(0, len(images), PASS_IMAGES)
        ]
        return float(np.mean(np.concatenate(parts)))

    def one_bound() -> float:
        return float(bound(next(keys), svi.get_params(current["state"])))

    return Peer(train, one_bound, evaluate)
