"""Writes a sweep's folder as its processes would, with known values per image."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elbo_lab import configs, training
from elbo_lab.cli import validation
from elbo_lab.configs import Config
from elbo_lab.evaluation import Evaluation, write_evaluations
from elbo_lab.reports.tables import Result
from elbo_lab.runs import run_files, rundir
from elbo_lab.sweeps import grid
from tests.training.toys import MEASURED

DIGEST = "0123"
TERMS = ("bound", "kl", "reconstruction")
IMAGES, LATENTS = 30, 4
DATA = {
    "name": "blobs",
    "train_images": 60,
    "test_images": IMAGES,
    "image_shape": [8, 8],
    "binarization": "dynamic",
}


class Family(NamedTuple):
    """The contents of runs of a model family."""

    headline: str | None
    terms: tuple[str, ...]
    measured: tuple[str, ...]
    layered: bool = False  # True if means of latents are measured


FAMILIES = {
    "mlp": Family("log_likelihood", TERMS, MEASURED, layered=True),
    "pixelcnn": Family("log_px", ("nll",), ("log_px",)),
    "vqvae": Family("log_px_code", ("loss", "commitment"), ("log_px_code",)),
}


def config(values: dict[str, str], **changes) -> Config:
    settings = {n: int(v) if n in ("k", "layers") else v for n, v in values.items()} | changes
    sizes = {"batch_size": 10, "epochs": 2, "log_every": 6}
    if FAMILIES[settings.get("model", "mlp")].layered:
        sizes["latent_dims"] = (LATENTS,)
    result = configs.make(dataset="blobs.npz", **sizes | settings)
    validation.check(result)
    return configs.resolved(result)


def cells(axes: dict[str, list[str]], **changes) -> list[grid.Cell]:
    return grid.expand(axes, lambda values: config(values, **changes))


def evaluation(rng: np.random.Generator, level: float, model: str = "mlp") -> Evaluation:
    """Values around a level; 1 + (int(-level) mod 4) of the latents vary between images."""
    family = FAMILIES[model]
    values = {name: level + rng.normal(size=IMAGES) for name in family.measured}
    if not family.layered:
        return values | {"codes": rng.integers(0, 9, (IMAGES, 4))}
    active = 1 + int(-level) % LATENTS
    means = np.where(np.arange(LATENTS) < active, 1.0, 0.0) * rng.normal(size=(IMAGES, LATENTS))
    return values | {"means_1": means}


def write_run(folder: Path, runs: list[Config], evaluations, failed_at=None) -> Path:
    """Writes the directory of a complete run of these replicates."""
    group = grid.group(runs)
    family = FAMILIES[group.config.model]
    path = folder / "runs" / group.name
    with rundir.claim(str(path), group.config, DIGEST, False, group.replicas):
        write_evaluations(path / rundir.EVALUATION, evaluations)
        seconds, bounds = [2.0, 5.0], [-9.0, -7.0]
        lines = [
            {"step": 6 * i + 6, "seconds": s} | dict.fromkeys(family.terms, [b] * len(runs))
            for i, (s, b) in enumerate(zip(seconds, bounds, strict=True))
        ]
        (path / rundir.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = {
            "elbo_lab": "1",
            "jax": "1",
            "device": "cpu, 1 core",
            "steps": 12,
            "data": DATA,
            "terms": family.terms,
            "headline": family.headline,
            "figures": ["samples"],
            "measured": {
                name: list(array.shape) for name, array in evaluations[min(evaluations)].items()
            },
            "config": configs.to_dict(group.config),
            "failed_at": dict.fromkeys(map(str, range(len(runs))), -1) | (failed_at or {}),
            "failed_replicates": [],
            "replicas": [configs.to_dict(run) for run in runs],
            "results": [
                Result(run_files.WALL_TIME, "", seconds[-1], unit="s")._asdict(),
                Result(run_files.SPEED, "", 2.0, unit="steps/s")._asdict(),
            ],
        }
        (path / rundir.SUMMARY).write_text(json.dumps(summary))
    return path


def fill(folder: Path, cells: list[grid.Cell], seed: int = 0) -> dict[tuple[str, int], Evaluation]:
    """Writes a run for each cell. Returns (name of the cell, seed) -> its values."""
    rng, values = np.random.default_rng(seed), {}
    for i, cell in enumerate(cell for cell in cells if cell.config):
        replicas, model = training.replicas(cell.config), cell.config.model
        levels = [-90.0 + i + 0.3 * r for r in range(len(replicas))]
        evaluations = {r: evaluation(rng, level, model) for r, level in enumerate(levels)}
        write_run(folder, list(replicas), evaluations)
        values |= {(cell.name, replicas[r].seed): e for r, e in evaluations.items()}
    return values
