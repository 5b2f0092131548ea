"""VQ-VAE: discrete codes by the nearest vector of a codebook (van den Oord et al. 2017)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions.means import mean_or_draw
from elbo_lab.methods import codebook
from elbo_lab.methods.base import Loss, Method, Picture
from elbo_lab.models.base import Given, given_of
from elbo_lab.models.vqvae import Quantized, VQVAEOptions


def make(model: Quantized, options: VQVAEOptions, spec: Spec, measure_batch: int = 250) -> Method:
    """Trains the networks and the codebook of a VQ-VAE.

    For z_1..z_M, the encoder's outputs for x, and e_m the code nearest to z_m, the loss is

        - log p(x | e_1..e_M)  +  sum_m ||sg[z_m] - e_m||^2  +  commitment sum_m ||z_m - sg[e_m]||^2

    (equation 3), in nats per example; sg stops the gradient, and the squared distances are added to
    nats as they are. The gradient with respect to e_m in the first term is passed on to z_m. With
    moving averages (`options.codebook` = "ema") the second term is absent; `codebook.make` says how
    codes are trained and how unused codes are restarted. There is no KL: q(codes|x) is a point mass
    and the codes' prior is fitted afterwards. The loss is therefore no bound of log p(x);
    `pair_bound` is one, with that prior.

    Args:
      model: the networks.
      options: reads those of the codebook; `commitment` is read from the step's hparams instead.
      spec: of the data.
      measure_batch: examples that `measure` takes at once.

    Returns:
      A method; params are {"encoder", "decoder", "codebook"}, stats those of `codebook.Codebook`.
      `measure` gives "log_px_code", log p(x | e_1..e_M), and "codes", int32 [B, M].
    """
    book = codebook.make(
        options.codebook, model.num_codes, options.codebook_decay, options.restart_below
    )
    stop = jax.lax.stop_gradient

    def init(key: Array, batch: Batch, mean: Array | None = None) -> tuple[Any, Any]:
        network_key, codebook_key = jax.random.split(key)
        params = model.init(network_key, batch, mean)
        vectors = model.encode(params, batch.x, given_of(batch))
        codes, stats = book.init(codebook_key, vectors.reshape(-1, model.code_dim))
        return {**params, "codebook": codes}, stats

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict[str, Array]) -> Loss:
        vectors = model.encode(params, batch.x, given_of(batch))  # z [B, M, E]
        codes = book.codes(params["codebook"], stats)  # [K, E]
        rows = codebook.one_hot(codebook.nearest(vectors, codes), model.num_codes)  # [B, M, K]
        nearest = codebook.chosen(rows, codes)  # e [B, M, E]
        quantized = codebook.straight_through(vectors, nearest)
        reconstruction = model.likelihood(params, quantized, given_of(batch)).log_prob(batch.x)
        distance = codebook.squared_distance(vectors, stop(nearest))
        terms = {"reconstruction": reconstruction, "commitment": hparams["commitment"] * distance}
        if options.codebook == "loss":
            terms["codebook"] = codebook.squared_distance(stop(vectors), nearest)
        value = terms["commitment"] + terms.get("codebook", 0) - reconstruction

        stats, restarts = book.update(
            key,
            stop(params["codebook"]),
            stats,
            stop(vectors).reshape(-1, model.code_dim),
            rows.reshape(-1, model.num_codes),
        )
        perplexity = codebook.perplexity(jnp.mean(rows, axis=(0, 1)))
        # Numbers of the batch, repeated for each example.
        terms["perplexity"] = jnp.full_like(value, perplexity)
        terms["restarts"] = jnp.full_like(value, restarts)
        return Loss(value, {"loss": value, **terms}, stats)

    def encode(params: Any, stats: Any, batch: Batch) -> Array:
        vectors = model.encode(params, batch.x, given_of(batch))
        return codebook.nearest(vectors, book.codes(params["codebook"], stats))

    def decode(params: Any, stats: Any, codes: Array, given: Given) -> Any:
        return model.likelihood(params, book.codes(params["codebook"], stats)[codes], given)

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        codes = encode(params, stats, batch)
        log_px_code = decode(params, stats, codes, given_of(batch)).log_prob(batch.x)
        return {"log_px_code": log_px_code, "codes": codes}

    def reconstructions(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        codes = encode(params, stats, batch)
        return jnp.clip(mean_or_draw(key, decode(params, stats, codes, given_of(batch))), 0, 1)

    terms = ["loss", "reconstruction", "commitment", "perplexity", "restarts"]
    if options.codebook == "loss":
        terms.insert(2, "codebook")
    return Method(
        init=init,
        loss=loss,
        terms=tuple(terms),
        measure=measure,
        measure_batch=measure_batch,
        pictures={
            "reconstructions": Picture(reconstructions, "Reconstructions", beside_inputs=True)
        },
        headline="log_px_code",
        encode=encode,
        decode=decode,
        code_spec=Spec("token", model.code_shape, model.num_codes, spec.classes),
    )


def pair_bound(method: Method, params: Any, stats: Any, batch: Batch, prior: Any) -> Array:
    """log p(x | z_q(x)) + log p(z_q(x)) of a VQ-VAE and a density of its codes.

    The pair is a model p(x) = sum_z p(z) p(x|z) over all K^M arrays of codes. The bound is the
    logarithm of one term of that sum. It is also the ELBO of q(z|x) = 1 at z_q(x), whose entropy is
    zero. So

        log p(x | z_q(x)) + log p(z_q(x)) <= log p(x)

    for every x (and every choice of codes), with equality where no other codes explain x. If p(x|z)
    is a density, this bounds a log-density, which does not compare with a mass.

    Args:
      method: from `make`.
      params: of the VQ-VAE.
      stats: of the VQ-VAE.
      batch: examples x, [B, D].
      prior: p(z), with `log_prob(codes [B, M])` [B] in nats.

    Returns:
      [B], nats per example: a deterministic lower bound of log p(x).
    """
    codes = method.encode(params, stats, batch)
    log_px_z = method.decode(params, stats, codes, given_of(batch)).log_prob(batch.x)
    return log_px_z + prior.log_prob(codes)
