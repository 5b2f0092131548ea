"""The last stage of a run: numbers, figures, and summary.json, which marks the run complete."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from elbo_lab import __version__, configs, evaluation, keys, training
from elbo_lab.data import Batch, contexts, decoded, has_images, is_binary
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.evaluation import Evaluation, quantities
from elbo_lab.files import write_summary
from elbo_lab.models import conditions
from elbo_lab.options import has_effect, options_of
from elbo_lab.reports import figures, results, words
from elbo_lab.reports.tables import Result, binarization_text, replicate_results, result_table
from elbo_lab.runs import run_files, rundir, stages, text_records
from elbo_lab.runs.probing import PREFIX

# Number of images in the figure of reconstructions.
RECONSTRUCTIONS = 20
# Number of drawn texts in samples.txt.
SAMPLED_TEXTS = 40


def report(run: stages.Run, evaluations: dict[int, Evaluation]) -> None:
    """Draws the figures and writes summary.json."""
    config, number = run.config, len(run.dataset.x_train)
    total, call = training.total_steps(config, number), training.steps_per_call(config, number)
    draw(run, evaluations)
    records = stages.read_records(run, total)
    before_last_pass = total - training.steps_per_epoch(config, number)
    per_replicate = []
    for r, evaluated in evaluations.items():
        train = [
            results.train_result(
                config,
                records,
                before_last_pass,
                r,
                steps_per_line=call,
                term=term,
                kind=run.spec.kind,
            )
            for term in run.method.terms[: run.method.tabled_terms]
        ]
        per_replicate.append([*train, *results.test_results(config, evaluated, run.spec)])
    timing = [
        Result(run_files.WALL_TIME, "", run.seconds, unit="s"),
        Result(run_files.SPEED, "", _steps_per_second(records), unit="steps/s"),
    ]
    dataset = data_description(run)
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
    kind = summary["data"]["kind"]
    data_texts = [dataset, *summary["data"].get("notes", ())]
    if kind == "image":
        data_texts.append(binarization_text(summary["data"]["binarization"]))
    batch = f"{config['batch_size']} {words.for_kind('images', kind)}"
    titles = [
        ("objective", objective_text(config)),
        ("data", ", ".join(data_texts)),
        ("model", f"{model_text(config)}; {seeds}"),
        ("trained", f"{summary['steps']:,} steps of {batch} on {summary['device']}"),
        ("kept in", str(path)),
    ]
    if text := optimizer_text(config):
        titles.insert(3, ("optimizer", text))
    return result_table(titles, results.from_json(summary["results"]))


def model_text(config: dict[str, Any]) -> str:
    """The model family, with its latent dimensions, if it has any, what is not standard in the laws
    of its latent variables, and its condition: "mlp, latent dimensions 100, 50, full covariance,
    mixture prior, given the label".
    """
    texts = [config["model"]]
    if latents := config.get("latent_dims"):
        texts.append(f"latent dimensions {', '.join(map(str, latents))}")
    # Configurations of earlier versions lack these settings.
    if (posterior := config.get("posterior", "diagonal")) != "diagonal":
        is_flow = posterior == "iaf"
        texts.append("inverse autoregressive posterior" if is_flow else f"{posterior} covariance")
    if min_kl := config.get("posterior_min_kl"):
        texts.append(f"KL of each latent at least {min_kl:g}")
    if (prior := config.get("prior", "standard")) != "standard":
        texts.append(f"{prior} prior")
    if config.get("condition", conditions.NONE) != conditions.NONE:
        texts.append("given the label")
    return ", ".join(texts)


def objective_text(config: dict[str, Any]) -> str:
    """The objective with its settings, defaults included, that have an effect: "iwae, k = 5"."""
    if config["objective"] is None:
        return f"{config['model']}'s own loss"
    texts = [config["objective"]]
    if config["k"] is not None:
        texts.append(f"k = {config['k']}")
    if config["m"] > 1:
        texts.append(f"m = {config['m']}")
    for name in options_of(configs.objective_settings(config["objective"])):
        value = config.get(name) if has_effect(name, config) else None
        if name == "kl" and value is not None:
            texts.append(f"{value} KL")
        elif value is not None:
            texts.append(f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}")
    if config["estimator"]:
        texts.append(f"{config['estimator']} estimator")
    # Configurations of earlier versions lack it.
    if (baseline := config.get("score_baseline", "none")) != "none":
        texts.append(f"learned baseline ({baseline})")
    return ", ".join(texts)


def optimizer_text(config: dict[str, Any]) -> str:
    """The optimizer with its learning rate, averaging and warm-up; "" for Adam without these.

    Configurations of earlier versions lack the fields.
    """
    name, ema = config.get("optimizer", "adam"), config.get("ema", 0.0)
    warmup = config.get("warmup_steps", 0)
    if name == "adam" and not ema and not warmup:
        return ""
    texts = [name, f"learning rate {config['learning_rate']:g}"]
    if warmup:
        texts.append(f"warm-up {warmup:,} steps")
    if ema:
        texts.append(f"ema {ema:g}")
    return ", ".join(texts)


def draw(run: stages.Run, evaluations: dict[int, Evaluation]) -> None:
    """Writes the figures of the first finite replicate; the training curves are of all replicates.

    Raises:
      UserError: a file cannot be written.
    """
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
    density, conditional = results.is_density(run.config), results.is_conditional(run.config)
    curves = {}
    for name in run.method.terms:
        title, unit = quantities.term(name, density, conditional)
        curves[name] = title, words.for_kind(unit, run.spec.kind)
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
    """Draws the measurements of the first test batch against the step, the headline first."""
    probes = [record for record in records if any(name.startswith(PREFIX) for name in record)]
    if not probes:
        return
    measured = [name.removeprefix(PREFIX) for name in probes[0] if name.startswith(PREFIX)]
    probed = quantities.present(dict.fromkeys(measured))
    curves = {}
    for name in sorted(probed, key=lambda name: name != run.method.headline):
        quantity = quantities.described(
            probed[name], conditional=results.is_conditional(run.config)
        )
        unit = words.for_kind(quantity.unit, run.spec.kind)
        curves[f"{PREFIX}{name}"] = f"first test batch, {quantity.title}", unit
    figures.learning_curves(folder / "test_curves.png", probes, curves)


def _draw_pictures(run: stages.Run, r: int, folder: Path) -> None:
    """Draws the method's pictures; of texts it writes them, and there are none of other data."""
    if run.dataset.text is not None:
        _write_texts(run, r)
    if not has_images(run.dataset):
        return
    pictures, inputs = run.method.pictures, _shown_inputs(run)
    for name, images in _pictures(run, r).items():
        path, picture = folder / f"{name}.png", pictures[name]
        if picture.beside_inputs:
            figures.reconstructions(path, inputs, images)
        elif picture.axes is not None:
            figures.latent_grid(path, images, len(picture.axes), picture.axes)
        else:
            figures.image_grid(path, images, picture.columns, picture.title, picture.rows)


def _write_texts(run: stages.Run, r: int) -> None:
    """Writes the method's samples and reconstructions into samples.txt."""
    text, sections = run.dataset.text, {}

    def lines_of(tokens: np.ndarray) -> list[str]:
        return [text_records.shown(text, poem) for poem in text.decode(tokens)]

    for name, tokens in _pictures(run, r).items():
        picture = run.method.pictures[name]
        if picture.beside_inputs:  # drawn from the codes of the test texts
            pairs = zip(lines_of(_shown_inputs(run)), lines_of(tokens), strict=True)
            lines = [
                line for test, drawn in pairs for line in (f"test   {test}", f"drawn  {drawn}")
            ]
        elif picture.axes is None:
            lines = lines_of(tokens[:SAMPLED_TEXTS])
        else:
            continue
        sections[picture.title] = lines
    text_records.write_samples(run.path, run.path.name, sections)


def _shown_inputs(run: stages.Run) -> np.ndarray:
    """The first test examples, [n, *shape], as the model that decodes them gives them."""
    return _shaped(run, run.test_examples().x[:RECONSTRUCTIONS])


def _shaped(run: stages.Run, x: jax.Array) -> np.ndarray:
    """Examples [n, D] in the shape of images or texts; codes given those above are decoded with
    those of the first n test examples.
    """
    context = contexts(run.dataset)[1]
    return decoded(run.dataset, x, None if context is None else context[: len(x)])


def _pictures(run: stages.Run, r: int) -> dict[str, np.ndarray]:
    """The method's pictures by name, [n, *shape] each, from one compiled program."""
    pictures = run.method.pictures
    base_key, params, stats = run.replicate(r)
    key = keys.stream_key(base_key, keys.FIGURES)
    inputs = jax.tree.map(lambda array: array[:RECONSTRUCTIONS], run.test_examples())

    @jax.jit
    def draw_all(params: Any, stats: Any, batch: Batch) -> dict[str, jax.Array]:
        picture_keys = jax.random.split(key, len(pictures))
        return {
            name: picture.draw(picture_key, params, stats, batch)
            for (name, picture), picture_key in zip(pictures.items(), picture_keys, strict=True)
        }

    drawn = draw_all(params, stats, inputs)  # in the order of the names
    return {name: _shaped(run, drawn[name]) for name in pictures}


def data_description(run: stages.Run) -> dict[str, Any]:
    """The description of the run's data in its summary."""
    binarization = run.config.binarization
    # No binarization changes images that are binary already; other data have none.
    if run.spec.kind != "image" or (
        is_binary(run.dataset.x_test) and is_binary(run.dataset.x_train)
    ):
        binarization = "none"
    return {
        "name": run.dataset.name,
        "kind": run.spec.kind,
        "train_images": len(run.dataset.x_train),
        "test_images": len(run.dataset.x_test),
        "image_shape": list(run.dataset.image_shape),
        "binarization": binarization,
        "notes": list(run.dataset.notes),
    }


def _listed(mode: str, rows: list[Result]) -> list[dict[str, Any]]:
    """Results for summary.json; those of a split have its binarization."""
    return [row._asdict() | {"binarization": mode if row.split else None} for row in rows]


def _steps_per_second(records: list[dict]) -> float:
    """The median over compiled calls, which leaves out compilation and pauses; NaN if there are
    no lines.
    """
    if not records:
        return math.nan
    steps = np.diff([0] + [r["step"] for r in records])
    seconds = np.diff([0.0] + [r["seconds"] for r in records])
    return float(np.median(steps / np.maximum(seconds, 1e-9)))
