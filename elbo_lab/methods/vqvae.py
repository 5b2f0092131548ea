"""VQ-VAE: discrete codes by the nearest vector of a codebook (van den Oord et al. 2017), in one
level or several (VQ-VAE-2, Razavi et al. 2019).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec, split_levels
from elbo_lab.distributions.means import mean_or_draw
from elbo_lab.methods import codebook
from elbo_lab.methods.base import Loss, Method, Picture
from elbo_lab.models.base import Given, given_of
from elbo_lab.models.vqvae import Quantized, VQVAEOptions


class Quantization(NamedTuple):
    """One level of a batch: the encoder's outputs and their nearest codes."""

    vectors: Array  # z [B, M, E]
    indices: Array  # [B, M], int32
    nearest: Array  # e [B, M, E]


def make(model: Quantized, options: VQVAEOptions, spec: Spec, measure_batch: int = 250) -> Method:
    """Trains the networks and the codebooks of a VQ-VAE, of one level of codes or several.

    For z_1..z_M, the encoder's outputs for x, and e_m the code nearest to z_m, the loss is

        - log p(x | e_1..e_M)  +  sum_m ||sg[z_m] - e_m||^2  +  commitment sum_m ||z_m - sg[e_m]||^2

    (equation 3), in nats per example; sg stops the gradient, and the squared distances are added to
    nats as they are. The gradient with respect to e_m in the first term is passed on to z_m. With
    moving averages (`options.codebook` = "ema") the second term is absent; `codebook.make` says how
    codes are trained and how unused codes are restarted. There is no KL: q(codes|x) is a point mass
    and the codes' prior is fitted afterwards. The loss is therefore no bound of log p(x);
    `pair_bound` is one, with that prior.

    With L levels (Razavi et al. 2019, algorithm 1) the sums go over the outputs of all levels, each
    with a codebook of its own. They are quantized from the top down: z of a level is a function of
    x and of the codes of the levels above, through which its gradient is passed on as well.

    Args:
      model: the networks.
      options: reads those of the codebook; `commitment` is read from the step's hparams instead.
      spec: of the data.
      measure_batch: examples that `measure` takes at once.

    Returns:
      A method; params are {"encoder", "decoder", "codebook"}, stats those of `codebook.Codebook`.
      With several levels the codebook and the stats are tuples with one for each level. `measure`
      gives "log_px_code", log p(x | codes), and "codes", int32 [B, M], or "codes_1", ... from the
      top down. `encode` gives the codes of all levels side by side, from the top down.
    """
    book = codebook.make(
        options.codebook, model.num_codes, options.codebook_decay, options.restart_below
    )
    stop = jax.lax.stop_gradient
    levels = len(model.grids)
    code_specs = tuple(Spec("token", grid, model.num_codes) for grid in model.grids)

    def codes_of(params: Any, stats: Any) -> list[Array]:
        """The codes [K, E] of each level."""
        pairs = zip(_unpacked(params["codebook"], levels), _unpacked(stats, levels), strict=True)
        return [book.codes(*pair) for pair in pairs]

    def quantize(params: Any, stats: Any, batch: Batch) -> tuple[list[Quantization], tuple]:
        """Each level, and its codes as functions of z, [B, M, E] each."""
        features = model.features(params, batch.x, given_of(batch))
        done, above = [], ()
        for codes in codes_of(params, stats):
            vectors = model.vectors(params, features, above)
            indices = codebook.nearest(vectors, codes)
            nearest = codebook.chosen(codebook.one_hot(indices, model.num_codes), codes)
            done.append(Quantization(vectors, indices, nearest))
            above = (*above, codebook.straight_through(vectors, nearest))
        return done, above

    def init(key: Array, batch: Batch, mean: Array | None = None) -> tuple[Any, Any]:
        network_key, codebook_key = jax.random.split(key)
        params = model.init(network_key, batch, mean)
        features = model.features(params, batch.x, given_of(batch))
        books, stats, above = [], [], ()
        for level_key in _keys(codebook_key, levels):
            vectors = model.vectors(params, features, above)
            own, own_stats = book.init(level_key, vectors.reshape(-1, model.code_dim))
            codes = book.codes(own, own_stats)
            above = (*above, codes[codebook.nearest(vectors, codes)])
            books.append(own)
            stats.append(own_stats)
        return {**params, "codebook": _packed(books)}, _packed(stats)

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict[str, Array]) -> Loss:
        done, quantized = quantize(params, stats, batch)
        reconstruction = model.likelihood(params, quantized, given_of(batch)).log_prob(batch.x)
        distance = sum(codebook.squared_distance(q.vectors, stop(q.nearest)) for q in done)
        terms = {"reconstruction": reconstruction, "commitment": hparams["commitment"] * distance}
        if options.codebook == "loss":
            terms["codebook"] = sum(
                codebook.squared_distance(stop(q.vectors), q.nearest) for q in done
            )
        value = terms["commitment"] + terms.get("codebook", 0) - reconstruction
        return Loss(value, {"loss": value, **terms}, [(q.vectors, q.indices) for q in done])

    def update(key: Array, params: Any, stats: Any, observed: list) -> tuple[Any, dict[str, Array]]:
        books, new_stats, terms = _unpacked(params["codebook"], levels), [], {}
        for i, (level_key, own, old, (vectors, indices)) in enumerate(
            zip(_keys(key, levels), books, _unpacked(stats, levels), observed, strict=True)
        ):
            rows = codebook.one_hot(indices.ravel(), model.num_codes)
            new, restarts = book.update(
                level_key, own, old, vectors.reshape(-1, model.code_dim), rows
            )
            new_stats.append(new)
            terms[_numbered("perplexity", levels)[i]] = codebook.perplexity(jnp.mean(rows, axis=0))
            terms[_numbered("restarts", levels)[i]] = restarts.astype(jnp.float32)
        return _packed(new_stats), terms

    def encode(params: Any, stats: Any, batch: Batch) -> Array:
        done, _ = quantize(params, stats, batch)
        return jnp.concatenate([q.indices for q in done], axis=-1)

    def decode(params: Any, stats: Any, codes: Array, given: Given) -> Any:
        pairs = zip(codes_of(params, stats), split_levels(codes, code_specs), strict=True)
        vectors = tuple(own[indices] for own, indices in pairs)
        return model.likelihood(params, vectors, given)

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        codes = encode(params, stats, batch)
        log_px_code = decode(params, stats, codes, given_of(batch)).log_prob(batch.x)
        of_levels = zip(_numbered("codes", levels), split_levels(codes, code_specs), strict=True)
        return {"log_px_code": log_px_code, **dict(of_levels)}

    def reconstructions(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        codes = encode(params, stats, batch)
        return jnp.clip(mean_or_draw(key, decode(params, stats, codes, given_of(batch))), 0, 1)

    terms = [
        "loss",
        "reconstruction",
        "commitment",
        *_numbered("perplexity", levels),
        *_numbered("restarts", levels),
    ]
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
        code_specs=code_specs,
        gradient_batch=model.gradient_batch,
        update=update,
    )


# A single level is neither packed into a tuple nor numbered: so it is in the runs that were stored
# before there were several.


def _packed(of_levels: list[Any]) -> Any:
    return of_levels[0] if len(of_levels) == 1 else tuple(of_levels)


def _unpacked(tree: Any, levels: int) -> tuple[Any, ...]:
    return (tree,) if levels == 1 else tree


def _numbered(name: str, levels: int) -> list[str]:
    """The name of a term or quantity for each level."""
    return [name] if levels == 1 else [f"{name}_{i + 1}" for i in range(levels)]


def _keys(key: Array, levels: int) -> list[Array]:
    """A key for each level."""
    return [key] if levels == 1 else list(jax.random.split(key, levels))


def pair_bound(method: Method, params: Any, stats: Any, batch: Batch, prior: Any) -> Array:
    """log p(x | z_q(x)) + log p(z_q(x)) of a VQ-VAE and a density of its codes.

    The pair is a model p(x) = sum_z p(z) p(x|z) over all K^M arrays of codes, those of all levels.
    The bound is the logarithm of one term of that sum. It is also the ELBO of q(z|x) = 1 at z_q(x),
    whose entropy is zero. So

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
