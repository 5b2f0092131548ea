"""The last stage of a run: numbers, figures, and the summary that marks it complete."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from elbo_lab import __version__, configs, evaluation, keys, training
from elbo_lab.data import Batch, is_binary
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.evaluation import Evaluation, quantities
from elbo_lab.files import write_summary
from elbo_lab.options import options_of
from elbo_lab.reports import figures, results
from elbo_lab.reports.tables import Result, binarization_text, replicate_results, result_table
from elbo_lab.runs import run_files, rundir, stages
from elbo_lab.runs.probing import PREFIX

# Images in the figure of reconstructions.
RECONSTRUCTIONS = 20


def report(run: stages.Run, evaluations: dict[int, Evaluation]) -> None:
    """Draws the figures and writes summary.json."""
    config, number = run.config, len(run.dataset.x_train)
    total, call = training.total_steps(config, number), training.steps_per_call(config, number)
    draw(run, evaluations)
    records = stages.read_records(run, total)
    last_pass = total - training.steps_per_epoch(config, number)
    per_replicate = [
        [
            results.train_result(config, records, last_pass, r, call, run.method.terms[0]),
            *results.test_results(config, e, run.spec),
        ]
        for r, e in evaluations.items()
    ]
    timing = [
        Result(run_files.WALL_TIME, "", run.seconds, unit="s"),
        Result(run_files.SPEED, "", _steps_per_second(records), unit="steps/s"),
    ]
    dataset = described(run)
    mode = dataset["binarization"]
    summary = {
        "elbo_lab": __version__,
        "jax": jax.__version__,
        "device": setup.describe(),
        "config": configs.to_dict(config),
        "data": dataset,
        "steps": total,
        "terms": list(run.method.terms),
        "headline": run.method.headline,
        "measured": {n: list(s) for n, s in stages.measured_shapes(run).items()},
        "figures": sorted(path.stem for path in (run.path / rundir.FIGURES).glob("*.png")),
        "lost_metrics": run.missing,
        "failed_at": {str(r): int(run.failed_at[r]) for r in range(config.replicates)},
        "failed_replicates": [r for r in range(config.replicates) if r not in evaluations],
        "replicas": [configs.to_dict(replica) for replica in run.replicas],
        "results": _listed(mode, replicate_results(per_replicate) + timing),
        "replicates": {
            str(r): _listed(mode, own) for r, own in zip(evaluations, per_replicate, strict=True)
        },
    }
    run.check_directory()
    write_summary(run.path / rundir.SUMMARY, summary)


def stored_table(path: Path) -> str:
    """The table of a complete run, from its summary.json.

    Raises:
      UserError: the summary cannot be read.
    """
    summary = run_files.read_summary(path)
    config, dataset = summary["config"], summary["data"]["name"]
    survivors = config["replicates"] - len(summary["failed_replicates"])
    seeds = f"seed {config['seed']}"
    if config["replicates"] > 1:
        seeds = f"{survivors} replicates of {config['replicates']}, seeds from {config['seed']}"
    steps = f"{summary['steps']:,} steps"
    binarized = binarization_text(summary["data"]["binarization"])
    titles = [
        ("objective", objective_text(config)),
        ("data", ", ".join([dataset, *summary["data"].get("notes", ()), binarized])),
        ("model", f"{model_text(config)}; {seeds}"),
        ("trained", f"{steps} of {config['batch_size']} images on {summary['device']}"),
        ("kept in", str(path)),
    ]
    return result_table(titles, results.from_json(summary["results"]))


def model_text(config: dict[str, Any]) -> str:
    """The model family, with its latent dimensions where it has any."""
    latents = config.get("latent_dims")
    return config["model"] + (
        f", latent dimensions {', '.join(map(str, latents))}" if latents else ""
    )


def objective_text(config: dict[str, Any]) -> str:
    """What was trained, with the settings that were used, given or not: "iwae, k = 5, ..."."""
    if config["objective"] is None:
        return f"that of {config['model']}"
    text = config["objective"]
    text += f", k = {config['k']}" if config["k"] is not None else ""
    text += f", m = {config['m']}" if config["m"] > 1 else ""
    for name in options_of(configs.objective_settings(config["objective"])):
        value = config.get(name)
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            text += f", {value} KL" if name == "kl" else f", {name} = {shown}"
    return text + (f", {config['estimator']} estimator" if config["estimator"] else "")


def draw(run: stages.Run, evaluations: dict[int, Evaluation]) -> None:
    """Writes the figures of the first replicate that is finite (curves are of all)."""
    setup.release_memory()
    folder = run.path / rundir.FIGURES
    run.check_directory()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    number = len(run.dataset.x_train)
    records = stages.read_records(run, training.total_steps(run.config, number))
    r = min(evaluations)
    density = results.is_density(run.config)
    curves = {name: quantities.term(name, density) for name in run.method.terms}
    figures.learning_curves(folder / "learning_curves.png", records, curves)
    _draw_probes(run, folder, records)
    layers = quantities.layers(evaluations[r])
    if layers:
        activities = [evaluation.activity(layer) for layer in layers]
        figures.active_units(folder / "active_units.png", activities, evaluation.ACTIVE_THRESHOLD)
    if layers and layers[0].shape[1] == 2 and len(layers) == 1:
        # The textbook's figure 13.6.
        figures.latent_scatter(folder / "latent_space.png", layers[0], run.dataset.y_test)
    _draw_pictures(run, r, folder)


def _draw_probes(run: stages.Run, folder: Path, records: list[dict]) -> None:
    """Draws what was measured of the first test batch, the quantity that runs compare by first."""
    probes = [record for record in records if any(name.startswith(PREFIX) for name in record)]
    if not probes:
        return
    measured = [name.removeprefix(PREFIX) for name in probes[0] if name.startswith(PREFIX)]
    found = quantities.present(dict.fromkeys(measured))
    names = sorted(found, key=lambda name: name != run.method.headline)
    title = "first test batch, {}".format
    curves = {f"{PREFIX}{n}": (title(found[n].title), found[n].unit) for n in names}
    figures.learning_curves(folder / "test_curves.png", probes, curves)


def _draw_pictures(run: stages.Run, r: int, folder: Path) -> None:
    """Draws what the method shows, from one compiled program."""
    pictures = run.method.pictures
    if run.spec.kind != "image" and run.dataset.decode is None:
        return
    base_key, params, stats = run.replicate(r)
    key = keys.stream_key(base_key, keys.FIGURES)
    inputs = jax.tree.map(lambda array: array[:RECONSTRUCTIONS], run.test_examples())

    @jax.jit
    def draw_all(params: Any, stats: Any, batch: Batch) -> dict[str, jax.Array]:
        own = dict(zip(pictures, jax.random.split(key, len(pictures)), strict=True))
        return {name: p.draw(own[name], params, stats, batch) for name, p in pictures.items()}

    def shaped(x: jax.Array) -> np.ndarray:
        if run.dataset.decode is not None:
            return run.dataset.decode(x)
        return np.asarray(x).reshape(-1, *run.spec.shape)

    for name, images in draw_all(params, stats, inputs).items():
        path, picture = folder / f"{name}.png", pictures[name]
        if picture.beside_inputs:
            figures.reconstructions(path, shaped(inputs.x), shaped(images))
        elif picture.axes is not None:
            figures.latent_grid(path, shaped(images), len(picture.axes), picture.axes)
        else:
            figures.image_grid(path, shaped(images), 10, picture.title)


def described(run: stages.Run) -> dict[str, Any]:
    """What the summary says of the run's images."""
    # Binary images are what they are, however they would be made binary.
    binary = run.spec.kind != "image"
    binary = binary or is_binary(run.dataset.x_test) and is_binary(run.dataset.x_train)
    return {
        "name": run.dataset.name,
        "train_images": len(run.dataset.x_train),
        "test_images": len(run.dataset.x_test),
        "image_shape": list(run.dataset.image_shape),
        "binarization": "none" if binary else run.config.binarization,
        "notes": list(run.dataset.notes),
    }


def _listed(mode: str, rows: list[Result]) -> list[dict[str, Any]]:
    """Results for summary.json: those of a split also say how it was binarized."""
    return [row._asdict() | {"binarization": mode if row.split else None} for row in rows]


def _steps_per_second(records: list[dict]) -> float:
    """The median over compiled calls, which leaves out compilation and pauses; NaN of no lines."""
    if not records:
        return math.nan
    steps = np.diff([0] + [r["step"] for r in records])
    seconds = np.diff([0.0] + [r["seconds"] for r in records])
    return float(np.median(steps / np.maximum(seconds, 1e-9)))
