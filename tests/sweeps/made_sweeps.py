"""A sweep's folder as processes would leave it, with known values per image."""

import json
from pathlib import Path

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


def config(values: dict[str, str], **others) -> Config:
    own = {n: int(v) if n == "k" else v for n, v in values.items()}
    sizes = {"latent_dims": (LATENTS,), "batch_size": 10, "epochs": 2, "log_every": 6}
    made = configs.make(**own, dataset="blobs.npz", **sizes | others)
    validation.check(made)
    return validation.resolved(made)


def cells(axes: dict[str, list[str]], **others) -> list[grid.Cell]:
    return grid.expand(axes, lambda values: config(values, **others))


def evaluation(rng: np.random.Generator, level: float) -> Evaluation:
    """Values around a level; as many of the latents vary as the level is deep, at least one."""
    draw = {name: level + rng.normal(size=IMAGES) for name in MEASURED}
    active = 1 + int(-level) % LATENTS
    means = np.where(np.arange(LATENTS) < active, 1.0, 0.0) * rng.normal(size=(IMAGES, LATENTS))
    return draw | {"means_1": means}


def write_run(folder: Path, runs: list[Config], evaluations, failed_at=None) -> Path:
    """A complete run's directory, of the given replicates."""
    group = grid.group(runs)
    path = folder / "runs" / group.name
    with rundir.claim(str(path), group.config, DIGEST, False, group.replicas):
        write_evaluations(path / rundir.EVALUATION, evaluations)
        seconds, bounds = [2.0, 5.0], [-9.0, -7.0]
        lines = [
            {"step": 6 * i + 6, "seconds": s} | dict.fromkeys(TERMS, [b] * len(runs))
            for i, (s, b) in enumerate(zip(seconds, bounds, strict=True))
        ]
        (path / rundir.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = {
            **{"elbo_lab": "1", "jax": "1", "device": "cpu, 1 core", "steps": 12, "data": DATA},
            **{"terms": TERMS, "headline": "log_likelihood", "figures": ["samples"]},
            "measured": {n: [IMAGES] for n in MEASURED} | {"means_1": [IMAGES, LATENTS]},
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


def fill(folder: Path, found: list[grid.Cell], seed: int = 0) -> dict[tuple[str, int], Evaluation]:
    """Runs for all cells; returns the values by cell and seed."""
    rng, values = np.random.default_rng(seed), {}
    for i, cell in enumerate(c for c in found if c.config):
        replicas = training.replicas(cell.config)
        own = {r: evaluation(rng, -90.0 + i + 0.3 * r) for r in range(len(replicas))}
        write_run(folder, list(replicas), own)
        values |= {(cell.name, replicas[r].seed): e for r, e in own.items()}
    return values
