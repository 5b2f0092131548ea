"""The flags by which experiments.sample shows a run's latent space."""

from pathlib import Path

from absl import flags

from elbo_lab.cli import flag_values
from elbo_lab.errors import UserError

# The choices of --show, and what they are. All but the first are in `elbo_lab.runs.geometry`.
SAMPLES = "samples"
SHOWS = {
    SAMPLES: "draws from the model",
    "interpolation": "paths between test examples, two at a time",
    "traversal": "one latent dimension at a time varied around a test example",
    "plane": "decoded points of the plane of two latents",
    "map": "the test examples in the plane of two latents",
    "shared_z": "test examples, each with draws of p(x|z) that share its z",
}
# The flags that a choice does not take.
UNUSED = {name: ("num", "label", "prefix", "poem") for name in SHOWS} | {
    SAMPLES: ("examples", "poem"),
    "interpolation": ("num", "label", "prefix"),
    "plane": ("num", "prefix", "poem"),
}


def define() -> None:
    """Defines --show and --examples."""
    shows = ", ".join(f"{name} ({about})" for name, about in SHOWS.items())
    flags.DEFINE_string("show", SAMPLES, f"one of {shows}")
    flags.DEFINE_string(
        "examples",
        None,
        "indices of test examples: pairs to interpolate, one to traverse, or any whose z is shared",
    )


def shows_latents() -> bool:
    """True if --show asks for anything but samples.

    Raises:
      UserError: an unknown choice, or a flag that belongs to another one.
    """
    values = flags.FLAGS
    if values.show not in SHOWS:
        raise UserError(f"--show must be one of {', '.join(SHOWS)}; got {values.show!r}.")
    for name in UNUSED[values.show]:
        if values[name].present:
            raise UserError(f"--{name} has no meaning with --show={values.show}; leave it out.")
    return values.show != SAMPLES


def indices() -> tuple[int, ...] | None:
    """The numbers of --examples; None if it is not given.

    Raises:
      UserError: its value is not a list of whole numbers.
    """
    flag = flags.FLAGS["examples"]
    return flag_values.indices("examples", flag.value or "") if flag.present else None


def write(trained, key, out: Path) -> str:
    """Writes what --show asks for into a file; returns a few words that say what it is.

    Raises:
      UserError: the run has no such latents or test examples, or the file cannot be written.
    """
    from elbo_lab.runs import geometry  # imported late: JAX is configured first

    try:
        shown = geometry.show(trained, flags.FLAGS.show, key, indices(), flags.FLAGS.label)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"--run={flags.FLAGS.run}: {error}") from error
    geometry.write(out, shown, trained)
    return shown.about
