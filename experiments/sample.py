"""Draws examples from a stored run, or shows its latent space, as a picture, as arrays or as text.

python -m experiments.sample --run=runs/X --num=64 --out=samples.png
python -m experiments.sample --run=runs/X --num=1000 --out=samples.npz
python -m experiments.sample --run=runs/X --show=traversal --examples=3 --out=traversal.svg
python -m experiments.sample --run=runs/X --label=3    (a run with --condition=label)
python -m experiments.sample --run=runs/X --prefix=TEXT    (a run of texts; prints them)
"""

from pathlib import Path

from absl import flags

from elbo_lab import keys
from elbo_lab.cli import folders, latent_flags, run_flags, stored_runs, text_flags
from elbo_lab.cli.flag_values import define_optional_count
from elbo_lab.errors import UserError
from elbo_lab.reports import words


def main() -> int:
    """Loads a run, and writes its samples or its latent space. Returns the exit status."""
    values = flags.FLAGS
    out = Path(values.out or "").expanduser()
    if out.suffix not in (".png", ".svg", ".npz", ".txt"):
        raise UserError(
            f"--out must be a path ending in .png, .svg or .npz, or .txt for texts; got "
            f"{values.out!r}."
        )
    write = latent_flags.write if latent_flags.shows_latents() else write_samples
    stored_runs.set_up()
    folders.create("out", str(out.parent))
    trained = stored_runs.load(values.run, values.replicate)
    key = keys.stream_key(keys.base_key(values.seed), keys.SAMPLES)
    if text_flags.shows_text(trained, out):
        text_flags.show(trained, key, out)
    else:
        print(f"{write(trained, key, out)} of {trained.path}: {out}")
    return 0


def write_samples(trained, key, out: Path) -> str:
    """Draws samples into a file; returns a few words that say what it is."""
    from elbo_lab.runs import sampling  # imported late: JAX is configured first
    from elbo_lab.runs.progress import Progress

    values = flags.FLAGS
    sampling.check_out(out, trained)
    label, columns = sampling.labels(trained, values.num, values.label)
    number = values.num if label is None else len(label)
    progress = Progress("sampling", number, 0, "examples")
    try:
        x = sampling.sample(trained, key, number, lambda done: progress.to(int(done)), label)
    except ValueError as error:
        raise UserError(f"--run={values.run}: {error}") from error
    finally:
        progress.close()
    sampling.write(out, x, trained, columns, label)
    return words.counted(number, "sample")


def define() -> None:
    """Defines the script's flags."""
    flags.DEFINE_string("run", None, "a run's directory")
    latent_flags.define()
    text_flags.define()
    flags.DEFINE_integer("num", 64, "number of samples", lower_bound=1)
    flags.DEFINE_string(
        "out",
        "samples.png",
        "the output file: a picture (.png, .svg), arrays (.npz) or, of a run of texts, which are "
        "printed if it is not given, a text (.txt)",
    )
    flags.DEFINE_integer("replicate", 0, "index of the run's replicate", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "seed of the draws", 0, 2**31 - 1)
    define_optional_count(
        "label",
        "the class of all draws, for a run with --condition=label (if not given, every class, as "
        "many of each as --num allows: a row of the picture), or that of --show=plane (class 0)",
        least=0,
    )
    run_flags.define_run("platform", "compilation_cache_dir", "data_dir", "manual_dir")


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
