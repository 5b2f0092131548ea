"""The flags by which experiments.sample shows poems of a run of texts."""

from pathlib import Path

import numpy as np
from absl import flags

from elbo_lab import files
from elbo_lab.cli import latent_flags
from elbo_lab.errors import UserError
from elbo_lab.reports import words

# What a run of texts shows as text; other choices of --show give arrays or a picture.
_SHOWS = (latent_flags.SAMPLES, "interpolation")


def define() -> None:
    """Defines --prefix and --poem."""
    flags.DEFINE_string(
        "prefix",
        None,
        "the first characters of all draws, for a run of texts, which completes them",
    )
    flags.DEFINE_multi_string(
        "poem", [], "a text between which and another one --show=interpolation goes; given twice"
    )


def shows_text(trained, out: Path) -> bool:
    """True if what the flags ask for is shown as text.

    Raises:
      UserError: a flag or a type of file does not go with the run.
    """
    values = flags.FLAGS
    for name in ("prefix", "poem"):
        if values[name].present and trained.dataset.text is None:
            raise UserError(
                f"--{name} needs a run of texts; {trained.path} was trained on "
                f"{trained.config.dataset}."
            )
    is_text = trained.dataset.text is not None and values.show in _SHOWS
    if out.suffix == ".txt" and not is_text:
        raise UserError(
            f"--out={out} is a text; --show={values.show} of {trained.path} gives none. A path "
            "must end in .png, .svg or .npz."
        )
    if is_text and values["out"].present and out.suffix not in (".txt", ".npz"):
        raise UserError(
            f"--out={out} is a picture, but {trained.path} is a model of texts; give a path ending "
            "in .txt or .npz, or leave it out: texts are printed."
        )
    return is_text


def show(trained, key, out: Path) -> None:
    """Prints poems, or writes them to the file that --out names, as text or as arrays.

    Raises:
      UserError: see `elbo_lab.runs.poems`; or the file cannot be written.
    """
    values = flags.FLAGS
    draw = _walk if values.show == "interpolation" else _samples
    title, lines, arrays = draw(trained, key)
    if not values["out"].present:
        print("\n".join((title, "", *lines)))
        return
    if out.suffix == ".npz":
        files.write_arrays(out, arrays)
    else:
        files.write_atomically(out, ("\n".join(lines) + "\n").encode())
    print(f"{title}: {out}")


def _samples(trained, key) -> tuple[str, list[str], dict[str, np.ndarray]]:
    """Draws, or completions of --prefix: a title, a line for each, and the arrays of a file."""
    # Imported late: JAX is configured first.
    from elbo_lab.runs import poems, sampling, text_records
    from elbo_lab.runs.progress import Progress

    values, text = flags.FLAGS, trained.dataset.text
    sampling.check_label(trained, values.label)
    if values["prefix"].present:
        done = poems.completed(trained, key, values.prefix or "", values.num)
        completions = words.counted(values.num, "completion")
        x, title = done.x, f"{completions} of {values.prefix} by {trained.path}"
        if done.effective_sample_size is not None:
            title += (
                f" (effective sample size of {poems.CANDIDATES:,} draws of z: "
                f"{done.effective_sample_size:,.0f})"
            )
    else:
        progress = Progress("sampling", values.num, 0, "examples")
        x = sampling.sample(trained, key, values.num, lambda done: progress.to(int(done)))
        progress.close()
        title = f"{words.counted(values.num, 'sample')} of {trained.path}"
    texts = text.decode(x)
    lines = [text_records.shown(text, poem) for poem in texts]
    return title, lines, {"x": x, "text": np.array(texts)}


def _walk(trained, key) -> tuple[str, list[str], dict[str, np.ndarray]]:
    """Walks between pairs: a title, lines with the weight of the second end, and the arrays."""
    from elbo_lab.runs import poems, text_records  # imported late: JAX is configured first

    values, text = flags.FLAGS, trained.dataset.text
    indices = latent_flags.indices()
    if indices is not None and values.poem:
        raise UserError("--examples and --poem both name the ends of --show=interpolation.")
    walk = poems.walk(trained, key, poems.pairs_of(trained, values.poem, indices))

    def lines_of(tokens: np.ndarray) -> list[str]:
        return [text_records.shown(text, poem) for poem in text.decode(tokens)]

    lines = []
    for ends, points in zip(walk.ends, walk.x, strict=True):
        first, last = lines_of(ends)
        drawn = zip(walk.weights, lines_of(points), strict=True)
        lines += [f"from  {first}", *(f"{weight:.1f}   {poem}" for weight, poem in drawn)]
        lines += [f"to    {last}", ""]
    arrays = walk._asdict() | {"text": np.array([text.decode(points) for points in walk.x])}
    title = f"walks between {words.counted(len(walk.ends), 'pair')} of texts by {trained.path}"
    return title, lines[:-1], arrays
