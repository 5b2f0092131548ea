"""A sweep's folder as processes would leave it, with known values per image."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from elbo_lab import grid, rundir, train, validation
from elbo_lab.config import Config
from elbo_lab.evaluation import Evaluation, write_evaluations

DIGEST = "0123"
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
    made = Config(**own, dataset="blobs.npz", latent_dims=(LATENTS,), **others)
    validation.check(made)
    return validation.resolved(made)


def cells(axes: dict[str, list[str]], **others) -> list[grid.Cell]:
    return grid.expand(axes, lambda values: config(values, **others))


def evaluation(rng: np.random.Generator, level: float) -> Evaluation:
    """Values around a level; as many of the latents vary as the level is deep, at least one."""
    draw = {name: level + rng.normal(size=IMAGES) for name in Evaluation._fields[:6]}
    active = 1 + int(-level) % LATENTS
    means = np.where(np.arange(LATENTS) < active, 1.0, 0.0) * rng.normal(size=(IMAGES, LATENTS))
    return Evaluation(**draw, means=(means,))


def write_run(folder: Path, configs: list[Config], evaluations, failed_at=None) -> Path:
    """A complete run's directory, of the given replicates."""
    group = grid.group(configs)
    path = folder / "runs" / group.name
    with rundir.claim(str(path), group.config, DIGEST, False, group.replicas):
        write_evaluations(path / rundir.EVALUATION, evaluations)
        seconds, bounds = [2.0, 5.0], [-9.0, -7.0]
        lines = [
            json.dumps({"step": 6 * i + 6, "seconds": s, "bound": [b] * len(configs)})
            for i, (s, b) in enumerate(zip(seconds, bounds, strict=True))
        ]
        (path / rundir.METRICS).write_text("\n".join(lines) + "\n")
        summary = {
            "device": "cpu, 1 core",
            "data": DATA,
            "failed_at": failed_at or {},
            "replicas": [dataclasses.asdict(c) for c in configs],
        }
        (path / rundir.SUMMARY).write_text(json.dumps(summary))
    return path


def fill(folder: Path, found: list[grid.Cell], seed: int = 0) -> dict[tuple[str, int], Evaluation]:
    """Runs for all cells; returns the values by cell and seed."""
    rng, values = np.random.default_rng(seed), {}
    for i, cell in enumerate(c for c in found if c.config):
        replicas = train.replicas(cell.config)
        own = {r: evaluation(rng, -90.0 + i + 0.3 * r) for r in range(len(replicas))}
        write_run(folder, list(replicas), own)
        values |= {(cell.name, replicas[r].seed): e for r, e in own.items()}
    return values
