"""The latent space of a stored run: interpolations, traversals, the plane of two latents, the map,
and draws that share z.

Each but the plane is computed from the means E_q[z|x] of test examples. p(x|z) decodes: its mean in
closed form, else a draw (for shared z always draws). With several stochastic layers, all of it is
about the lowest, z_1: the means are those of q(z_1|x), and p(x|z) depends on z_1 alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import data, evaluation, files, models
from elbo_lab.data import Batch
from elbo_lab.distributions.means import mean_or_draw
from elbo_lab.errors import UserError
from elbo_lab.losses.posteriors import sample_from
from elbo_lab.methods import variational
from elbo_lab.models.base import NOTHING_GIVEN, Given, Model
from elbo_lab.objective_options import AUTOENCODER, GAN
from elbo_lab.reports import figures, latent_figures, words
from elbo_lab.runs import derived, examples, sampling
from elbo_lab.runs.loading import Trained

# Points of a path, and its reach on both sides of its start, in standard deviations.
POINTS, REACH = 11, 3.0
# The most latent dimensions that are traversed.
MOST_LATENTS = 10
# Draws of p(x|z) for each shared z.
SHARED_DRAWS = 8
# Draws of a learned prior whose quantiles are the plane's axes.
PRIOR_DRAWS = 10_000


class Shown(NamedTuple):
    """What is shown of a run."""

    about: str  # "the map of 2,000 test examples"
    arrays: dict[str, np.ndarray]  # the content of an .npz file
    draw: Callable[[Path], None]  # writes the picture
    has_images: bool = True  # the picture shows examples, which must be images


class LatentSpace(NamedTuple):
    """A run with continuous latents."""

    trained: Trained
    model: Model
    test: Batch  # as the evaluation sees it
    means: np.ndarray | None  # [N, L], E_q[z_1|x] of the test examples; None: a GAN has none
    label: int | None  # the class of points that belong to no example; None: no labels

    @property
    def name(self) -> str:
        """The run's folder, for titles."""
        return self.trained.path.name


def interpolation(space: LatentSpace, key: Array, indices: Sequence[int]) -> Shown:
    """Paths between test examples, two at a time, straight and on a great circle."""
    if len(indices) % 2:
        shown = ",".join(map(str, indices))
        raise UserError(f"--examples must be pairs of test examples; got {shown!r}, an odd number.")
    pairs = np.reshape(indices, (-1, 2))
    weights = np.linspace(0, 1, POINTS)
    starts, ends = space.means[pairs[:, 0]], space.means[pairs[:, 1]]
    arrays = {"examples": pairs, "weights": weights, "inputs": _images(space, pairs.ravel())}
    arrays["inputs"] = arrays["inputs"].reshape(len(pairs), 2, *arrays["inputs"].shape[1:])
    paths = {"linear": linear, "spherical": spherical}
    for path_key, (name, path) in zip(jax.random.split(key, 2), paths.items(), strict=True):
        z = np.stack([path(*ends_of, weights) for ends_of in zip(starts, ends, strict=True)])
        arrays[f"z_{name}"] = z
        arrays[name] = _decoded(space, path_key, z, np.repeat(pairs[:, 0], POINTS))
    about = f"interpolations between {words.counted(len(pairs), 'pair')} of test examples"

    def draw(path: Path) -> None:
        title = f"Interpolations between means of q(z|x)\nrun {space.name}"
        latent_figures.interpolations(
            path, arrays["inputs"], arrays["linear"], arrays["spherical"], title
        )

    return Shown(about, arrays, draw)


def traversal(space: LatentSpace, key: Array, indices: Sequence[int]) -> Shown:
    """One test example's mean, with one latent dimension at a time varied around it.

    The unit of the offsets is the standard deviation of the dimension's means over the test
    examples: about that of the prior for an active dimension, about 0 for one that ignores x.
    """
    if len(indices) != 1:
        shown = ",".join(map(str, indices))
        raise UserError(f"--examples must be one test example for --show=traversal; got {shown!r}.")
    (index,) = indices
    scales = np.sqrt(evaluation.activity(space.means))
    latents = np.argsort(-scales)[:MOST_LATENTS]
    offsets = np.linspace(-REACH, REACH, POINTS)
    z = np.tile(space.means[index], (len(latents), POINTS, 1))
    for row, latent in enumerate(latents):
        z[row, :, latent] += offsets * scales[latent]
    arrays = {
        "example": np.asarray(index),
        "latents": latents,
        "scales": scales[latents],
        "offsets": offsets,
        "z": z,
        "x": _decoded(space, key, z, np.full(len(latents) * POINTS, index)),
    }
    number, total = len(latents), len(scales)
    which = f"{number} most active of {total} latents" if number < total else f"{total} latents"
    about = f"traversals of the {which} around test example {index}"

    def draw(path: Path) -> None:
        labels = [f"$z_{{{latent + 1}}}$, std {scales[latent]:.2f}" for latent in latents]
        title = f"The {which}, around test example {index}\nrun {space.name}"
        axis = "offset from the mean of q(z|x), in stds of the means over test examples"
        latent_figures.traversals(path, arrays["x"], offsets, labels, title, axis)

    return Shown(about, arrays, draw)


def plane(space: LatentSpace, key: Array, indices: Sequence[int]) -> Shown:
    """Decoded points of the plane of two latents, at quantiles of the prior (figure 13.6b).

    An autoencoder has no prior that its codes follow: there, at quantiles of the test codes.
    """
    del indices
    _check_plane(space, "plane")
    number = variational.GRID
    draw_key, decode_key = jax.random.split(key)
    axes, source = _quantiles(space, draw_key, number)
    z = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    x = _decoded(space, decode_key, z, None)
    given = "" if space.label is None else f", class {space.label}"
    about = f"{number} x {number} decoded points of the latent plane{given}"

    def draw(path: Path) -> None:
        images = x.reshape(-1, *x.shape[2:])
        title = f"Means of p(x|z) over the latent plane{given}\nrun {space.name}"
        figures.latent_grid(path, images, number, axes, title, source)

    return Shown(about, {"axes": axes, "z": z, "x": x}, draw)


def latent_map(space: LatentSpace, key: Array, indices: Sequence[int]) -> Shown:
    """The test examples' means in the plane of two latents, coloured by label (figure 13.6a)."""
    del key, indices
    _check_plane(space, "map")
    labels = space.trained.dataset.y_test
    arrays = {"means": space.means} | ({} if labels is None else {"labels": labels})
    about = f"the latent map of {len(space.means):,} test examples"

    def draw(path: Path) -> None:
        title = f"Means of q(z|x) of {len(space.means):,} test examples\nrun {space.name}"
        figures.latent_scatter(path, space.means, labels, title)

    return Shown(about, arrays, draw, has_images=False)


def shared_z(space: LatentSpace, key: Array, indices: Sequence[int]) -> Shown:
    """Test examples, and draws of p(x|z) with z = E_q[z|x]: what they share is what z encodes."""
    z = space.means[list(indices)]
    of_draws = np.repeat(z[:, None], SHARED_DRAWS, axis=1)
    draws = _decoded(space, key, of_draws, np.repeat(indices, SHARED_DRAWS), _one_draw)
    arrays = {"examples": np.asarray(indices), "inputs": _images(space, np.asarray(indices))}
    arrays |= {"z": z, "x": draws}
    number = words.counted(len(indices), "test example")
    about = f"{SHARED_DRAWS} draws of p(x|z) for the z of each of {number}"

    def draw(path: Path) -> None:
        labels = [f"test example {index}" for index in indices]
        title = f"Draws of p(x|z) that share z, the mean of q(z|x)\nrun {space.name}"
        latent_figures.shared_z(path, arrays["inputs"], draws, labels, title)

    return Shown(about, arrays, draw)


# What --show names besides samples, and the test examples that it takes if none are given.
SHOWS: dict[str, Callable[[LatentSpace, Array, Sequence[int]], Shown]] = {
    "interpolation": interpolation,
    "traversal": traversal,
    "plane": plane,
    "map": latent_map,
    "shared_z": shared_z,
}
DEFAULT_EXAMPLES = {
    "interpolation": tuple(range(8)),
    "traversal": (0,),
    "shared_z": tuple(range(8)),
}


def show(
    trained: Trained,
    name: str,
    key: Array,
    indices: Sequence[int] | None,
    label: int | None = None,
) -> Shown:
    """Computes what one of `SHOWS` shows of a run.

    Args:
      trained: the run.
      name: one of SHOWS.
      key: for draws, where a law has no closed form.
      indices: of test examples; None: the default ones.
      label: the class of the plane, of a model that is conditioned on labels; None: class 0.

    Raises:
      UserError: the run has no such latents, there is no such test example, or it takes another
        number of them; the model has no such class or is not conditioned on labels.
    """
    space = _latent_space(trained, name, label)
    number = len(space.test.x)
    if indices is None:
        indices = [i % number for i in DEFAULT_EXAMPLES.get(name, ())]
    elif name not in DEFAULT_EXAMPLES:
        takers = ", ".join(f"--show={taker}" for taker in DEFAULT_EXAMPLES)
        raise UserError(f"--examples belongs to {takers}; got --show={name}.")
    for index in indices:
        if not 0 <= index < number:
            raise UserError(
                f"--examples must be indices of test examples, in 0..{number - 1}; got {index}."
            )
    return SHOWS[name](space, key, indices)


def write(path: Path, shown: Shown, trained: Trained) -> None:
    """Writes the picture, or, if the path ends in .npz, the arrays.

    Raises:
      UserError: the file cannot be written, or the examples are not images.
    """
    if path.suffix == ".npz":
        files.write_arrays(path, shown.arrays)
        return
    if shown.has_images and not data.has_images(trained.dataset):
        raise UserError(
            f"--out={path} is a picture, but {trained.path} is a model of {trained.spec.kind} "
            "examples; give a path ending in .npz."
        )
    shown.draw(path)


def linear(start: np.ndarray, end: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(1 - t) a + t b for each weight t [T], between a and b [L]: [T, L]."""
    return (1 - weights)[:, None] * start + weights[:, None] * end


def spherical(start: np.ndarray, end: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The path on a great circle between a and b (White 2016, section 2.1), [T, L].

        sin((1 - t) w) / sin w a + sin(t w) / sin w b,  w the angle between a and b

    Where both have the same norm, so has every point; the straight path is nearer to 0, where a
    Gaussian prior of many dimensions has no mass. Vectors without a plane of their own, at an angle
    of 0 or pi, or 0 itself, have the straight path.

    Args:
      start: a, [L].
      end: b, [L].
      weights: t, [T], from 0 at a to 1 at b.
    """
    norms = np.linalg.norm(start) * np.linalg.norm(end)
    cosine = np.clip(start @ end / norms, -1, 1) if norms > 0 else 1.0
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-6:
        return linear(start, end, weights)
    left, right = np.sin((1 - weights) * angle), np.sin(weights * angle)
    return (left[:, None] * start + right[:, None] * end) / np.sin(angle)


def _latent_space(trained: Trained, name: str, label: int | None) -> LatentSpace:
    """The run's latent space.

    Raises:
      UserError: it has none that is continuous, or no such class.
    """
    sampling.check_label(trained, label)
    if label is None and trained.method.classes is not None:
        label = 0
    model = models.make(trained.config, trained.spec)
    is_gan = trained.config.objective == GAN
    if is_gan and name != "plane":
        raise UserError(
            f"--show={name} needs the means of q(z|x); {trained.path} is a run of "
            f"--objective={GAN}, which encodes nothing: use --show=samples or, of two latents, "
            "--show=plane."
        )
    if not is_gan and (reason := _without_latents(trained, model)):
        raise UserError(
            f"--show={name} needs continuous latents, as mlp and conv have; {trained.path} is a "
            f"run of {trained.config.model}, and {reason}."
        )
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    means = None if is_gan else derived.encode_in_chunks(trained, test).astype(np.float64)
    return LatentSpace(trained, model, test, means, label)


def _without_latents(trained: Trained, model: Any) -> str:
    """The reason why a run has no codes in a continuous latent space; "" if it has."""
    family = trained.config.model
    if not isinstance(model, Model) or trained.method.encode is None:
        return f"{family} has none"
    return f"those of {family} are discrete" if model.is_discrete else ""


def _check_plane(space: LatentSpace, name: str) -> None:
    """Raises a UserError unless z has two dimensions."""
    sizes = space.trained.config.model_options.latent_dims
    if sizes != (2,):
        shown = ",".join(map(str, sizes))
        raise UserError(
            f"--show={name} needs --latent_dims=2; {space.trained.path} has latent_dims={shown}."
        )


def _quantiles(space: LatentSpace, key: Array, number: int) -> tuple[np.ndarray, str]:
    """Quantiles of both latents [2, number] at the middles of equal shares of mass, and of what."""
    config = space.trained.config
    levels = (np.arange(number) + 0.5) / number
    if config.objective == AUTOENCODER:
        return np.quantile(space.means, levels, axis=0).T, "the test codes"
    # Families without the setting have the standard prior.
    if getattr(config.model_options, "prior", "standard") == "standard":
        return np.stack(2 * [variational.normal_quantiles(number)]), "the prior"
    prior = space.model.prior(space.trained.params, NOTHING_GIVEN)
    draws = sample_from(prior, key, (PRIOR_DRAWS,))
    return np.quantile(np.asarray(draws, np.float64), levels, axis=0).T, "the prior"


def _images(space: LatentSpace, indices: np.ndarray) -> np.ndarray:
    """Test examples [n] as images, [n, *shape]."""
    trained, x = space.trained, np.asarray(space.test.x)[indices]
    if trained.dataset.decode is not None:
        return trained.dataset.decode(x)
    return x.reshape(-1, *trained.spec.shape)


def _one_draw(key: Array, law: Any) -> Array:
    """One draw of each, whether or not there is a mean in closed form."""
    return sample_from(law, key, ())


def _decoded(
    space: LatentSpace,
    key: Array,
    z: np.ndarray,
    indices: np.ndarray | None,
    value_of: Callable[[Array, Any], Array] = mean_or_draw,
) -> np.ndarray:
    """Decoded points z [..., L], as images where the data are images: [..., *shape].

    Args:
      space: the run.
      key: for draws.
      z: the points.
      indices: the test example, for each point in order, whose label p(x|z, y) is given; None: the
        label of the space.
      value_of: (key, p(x|z)) -> the values that are shown.
    """
    trained, label = space.trained, space.test.label
    flat = jnp.asarray(z.reshape(-1, z.shape[-1]), jnp.float32)
    sizes_above = trained.config.model_options.latent_dims[1:]
    given = NOTHING_GIVEN
    if indices is not None and label is not None:
        given = Given(label=label[indices])
    elif space.label is not None:
        given = Given(label=jnp.full(len(flat), space.label))

    @jax.jit
    def decode(params: Any, z: Array, given: Given) -> Array:
        # p(x|z) of several layers depends on the lowest alone; the others only complete the tuple.
        above = tuple(jnp.zeros((len(z), size)) for size in sizes_above)
        law = space.model.likelihood(params, (z, *above) if above else z, given)
        return value_of(key, law)

    x = decode(trained.params, flat, given)
    decode_features = trained.dataset.decode
    x = np.asarray(x) if decode_features is None else decode_features(x)
    shape = trained.spec.shape if decode_features is None else x.shape[1:]
    return x.reshape(*z.shape[:-1], *shape)
