"""Grids: cells, groups of one program, and time left."""

import itertools
import math

import pytest

from elbo_lab import configs
from elbo_lab.cli import validation
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.models import MODELS
from elbo_lab.sweeps import grid


def make(values: dict[str, str]) -> Config:
    numbers = {n: int(v) if n in ("k", "m") else v for n, v in values.items()}
    config = configs.make(**numbers, replicates=2)
    validation.check(config)
    return configs.resolved(config)


def test_cells_are_all_combinations_and_invalid_ones_have_a_reason():
    axes = {"objective": ["elbo", "iwae"], "k": ["1", "5"], "estimator": ["reparam", "vimco"]}
    cells = grid.expand(axes, make)
    assert [tuple(c.values.values()) for c in cells] == list(itertools.product(*axes.values()))
    skipped = [c for c in cells if c.config is None]
    assert {(c.values["k"], c.values["estimator"]) for c in skipped} == {("1", "vimco")}
    assert all("needs --k of at least 2" in c.reason for c in skipped)
    assert cells[0].name == "objective=elbo, k=1, estimator=reparam"
    assert cells[0].config == make(dict(objective="elbo", k="1", estimator="reparam"))


def test_a_grid_without_axes_is_one_cell():
    (cell,) = grid.expand({}, make)
    assert cell.name == "objective=iwae, k=5"


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"objective": ["elbo", "elboo"]}, "got 'elboo'"),
        ({"k": ["1"], "estimator": ["reparam", "vimco"]}, "compares draws"),
        ({"estimator": ["vimco"], "k": ["1"]}, "compares draws"),
    ],
)
def test_a_value_that_is_invalid_everywhere_is_an_error(axes, words):
    with pytest.raises(UserError, match=words):
        grid.expand(axes, make)


def test_the_baseline_is_the_first_matching_cell_that_is_trained():
    axes = {"objective": ["elbo", "iwae"], "k": ["1", "5"], "estimator": ["reparam", "vimco"]}
    cells = grid.expand(axes, make)
    assert grid.find(cells, {}) == 0
    assert cells[grid.find(cells, {"k": "5"})].values["objective"] == "elbo"
    # A matching cell that is skipped is passed over.
    assert cells[grid.find(cells, {"estimator": "vimco"})].values["k"] == "5"
    for wanted, words in [
        ({"beta": "1"}, "must name axes of the grid .*; got 'beta'"),
        ({"k": "7"}, "is not a cell of the grid"),
        ({"k": "1", "estimator": "vimco"}, "skipped"),
    ]:
        with pytest.raises(UserError, match=words):
            grid.find(cells, wanted)


def seeds(config: Config, count: int) -> list[Config]:
    return [configs.replace(config, seed=s) for s in range(count)]


def test_configs_that_differ_in_numbers_alone_share_a_program():
    base = configs.make(objective="renyi", alpha=0.5)
    same = [
        configs.replace(base, seed=7),
        configs.replace(base, learning_rate=0.1),
        configs.replace(base, alpha=-3.0),
    ]
    other = [
        configs.replace(base, k=6),
        configs.replace(base, alpha=-math.inf),
        configs.replace(base, alpha=math.inf),
        configs.replace(base, alpha="linear:0:1:50"),
        configs.replace(base, alpha="linear:0:1:60"),
        configs.replace(base, adam_eps=1e-8),
    ]
    groups = grid.groups([base, *same, *other, base], lambda _: 1.0, jobs=1)
    assert [len(g.replicas) for g in groups] == [4, 1, 1, 1, 1, 1, 1]
    assert groups[0].replicas == (base, *same)
    assert groups[0].config == configs.replace(base, replicates=4)


def test_groups_are_bounded_and_keep_every_replicate_once():
    wanted = seeds(Config(), 70) + seeds(Config(k=1), 3)
    groups = grid.groups(wanted, lambda c: float(c.k), jobs=1)
    assert max(len(g.replicas) for g in groups) <= grid.LARGEST_GROUP
    assert sorted(r.seed for g in groups for r in g.replicas if r.k == 5) == list(range(70))
    assert groups[-1].config.k == 1


@pytest.mark.parametrize("jobs", [2, 3, 8])
def test_several_jobs_end_at_nearly_the_same_time(jobs):
    wanted = seeds(Config(k=50), 12) + seeds(Config(k=1), 12)
    groups = grid.groups(wanted, lambda c: 1e8 * c.k, jobs)
    assert sorted((r.k, r.seed) for g in groups for r in g.replicas) == sorted(
        (r.k, r.seed) for r in wanted
    )
    work = [sum(1e8 * r.k for r in g.replicas) for g in groups]
    assert work == sorted(work, reverse=True)
    # Lower bounds of any schedule: an even share of the work; the 12 long replicates, undivided.
    least = max(sum(work) / jobs, -(-12 // jobs) * 50e8)
    assert grid.time_left(work, [], jobs, 1.0) <= 1.15 * least


def test_groups_are_split_only_if_it_saves_time():
    # Two programs already fill two jobs, and short runs are not worth another process.
    wanted = seeds(Config(k=5), 4) + seeds(Config(k=6), 4)
    assert len(grid.groups(wanted, lambda c: 1e8, jobs=2)) == 2
    assert len(grid.groups(wanted[:4], lambda c: 1e3, jobs=2)) == 1
    assert len(grid.groups(wanted[:4], lambda c: 1e8, jobs=2)) == 2
    assert len(grid.groups(wanted[:4], lambda c: 1e8, jobs=1)) == 1


def test_the_name_of_a_group_identifies_its_replicates():
    two, three = grid.group(seeds(Config(), 2)), grid.group(seeds(Config(), 3))
    assert two.name == grid.group(seeds(Config(), 2)).name != three.name
    assert two.name.startswith("iwae-k5-")


def test_time_left():
    # One job: the sum. Two jobs: 4 + 5 and 3 + 3; then 5 + 2 + 1 and 4 + 3.
    assert grid.time_left([4.0, 3.0, 2.0], [1.0], 1, 2.0) == 5.0
    assert grid.time_left([4.0, 3.0, 3.0, 5.0], [], 2, 1.0) == 9.0
    assert grid.time_left([5.0, 4.0, 3.0, 2.0, 1.0], [], 2, 1.0) == 8.0
    assert grid.time_left([], [2.0, 7.0], 4, 1.0) == 7.0


def test_relative_work():
    config = Config(epochs=10, batch_size=20)
    base = grid.training_work(config, 1000)
    assert grid.training_work(configs.replace(config, epochs=20), 1000) == 2 * base
    assert grid.training_work(configs.replace(config, held_out=500), 1000) == base / 2
    assert grid.training_work(configs.replace(config, k=50), 1000) == base * 54 / 9
    assert grid.evaluation_work(config, 100) == 0.4 * 100 * 5000
    # 784 x 400 + 400 x 50 of 784 x 200 + 200 x 200 + 200 x 50 multiplications
    wide = configs.replace(config, hidden_dims=(400,))
    assert grid.evaluation_work(wide, 100) == pytest.approx(0.4 * 100 * 5000 * 333_600 / 206_800)
    # Without draws, an image is measured once; a step of one image counts as 1 + 4 draws.
    for without in (
        Config(model="pixelcnn", epochs=10),
        Config(objective="autoencoder", epochs=10),
    ):
        size = MODELS[without.model].relative_cost
        assert grid.evaluation_work(without, 100) == 0.4 * 100 * size
        assert grid.training_work(without, 1000) == base * 5 / 9 * size
