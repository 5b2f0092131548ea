"""Evaluations on disk, and reported numbers by hand."""

import io
import math

import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.evaluation import Evaluation, read_evaluations, write_evaluations
from elbo_lab.reports import results
from tests.training.toys import MEASURED


def make_evaluation(seed: int = 0, number: int = 7, layers: int = 1) -> Evaluation:
    rng = np.random.default_rng(seed)
    shapes = {name: (number,) for name in MEASURED}
    shapes |= {f"means_{i + 1}": (number, 3) for i in range(layers)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def shapes_of(evaluation: Evaluation) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in evaluation.items()}


def assert_same(got: Evaluation, expected: Evaluation) -> None:
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, strict=True)


@pytest.mark.parametrize("layers", [1, 2])
def test_round_trip_of_any_replicates(tmp_path, layers):
    evaluations = {r: make_evaluation(r, layers=layers) for r in (0, 1, 10, 11)}
    write_evaluations(tmp_path / "evaluation.npz", evaluations)
    read = read_evaluations(tmp_path / "evaluation.npz")
    assert list(read) == [0, 1, 10, 11]
    for r, expected in evaluations.items():
        assert_same(read[r], expected)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_evaluations(tmp_path / name, {0: make_evaluation()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_file_is_no_evaluation(tmp_path):
    assert read_evaluations(tmp_path / "evaluation.npz") == {}


def test_a_truncated_file_is_no_evaluation(tmp_path):
    path = tmp_path / "evaluation.npz"
    write_evaluations(path, {0: make_evaluation()})
    whole = path.read_bytes()
    for length in range(0, len(whole), 101):
        path.write_bytes(whole[:length])
        assert read_evaluations(path) == {}


def test_a_flipped_byte_is_noticed_or_harmless(tmp_path):
    path, expected = tmp_path / "evaluation.npz", make_evaluation()
    write_evaluations(path, {0: expected})
    whole, noticed = path.read_bytes(), 0
    for place in range(0, len(whole), 5):
        for flip in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            path.write_bytes(damaged)
            read = read_evaluations(path, 7, shapes_of(expected))
            noticed += read == {}
            if read:
                assert list(read) == [0]
                assert_same(read[0], expected)
    assert noticed > 100


def test_a_foreign_npz_is_no_evaluation(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, elbo_0=np.zeros(3), elbo_x=np.zeros(3))
    (tmp_path / "evaluation.npz").write_bytes(buffer.getvalue())
    assert read_evaluations(tmp_path / "evaluation.npz") == {}


def test_another_array_is_no_evaluation(tmp_path):
    np.save(tmp_path / "bare.npy", np.zeros(3))
    assert read_evaluations(tmp_path / "bare.npy") == {}
    (tmp_path / "folder").mkdir()
    assert read_evaluations(tmp_path / "folder") == {}


def test_an_evaluation_of_other_images_or_dimensions_is_left_out(tmp_path):
    path, whole = tmp_path / "evaluation.npz", make_evaluation(layers=2)
    train_means = np.zeros((4, 3), np.float32)
    trained = whole | {"train_means_1": train_means, "train_means_2": train_means}
    shorter = whole | {"kl": whole["kl"][:5]}
    wider = whole | {"means_2": whole["means_2"][:5]}
    texts = whole | {"elbo": whole["elbo"].astype(str)}
    empty = make_evaluation(number=0)
    evaluations = dict(
        enumerate([whole, trained, shorter, wider, texts, empty, make_evaluation(0, 5)])
    )
    write_evaluations(path, evaluations)
    assert list(read_evaluations(path)) == [0, 1, 6]
    assert list(read_evaluations(path, 7)) == [0, 1]
    assert list(read_evaluations(path, 40)) == []
    shapes = shapes_of(whole)
    assert list(read_evaluations(path, 7, shapes)) == [0]
    train_shapes = {"train_means_1": (4, 3), "train_means_2": (4, 3)}
    assert list(read_evaluations(path, 7, shapes | train_shapes)) == [1]
    assert list(read_evaluations(path, 7, shapes | {"means_2": (7, 4)})) == []
    assert list(read_evaluations(path, 7, shapes | {"codes": (7, 4)})) == []


# Results

VALUES = [-1.0, -2.0, -6.0]  # mean -3, squared deviations 4 + 1 + 9
ERROR = math.sqrt(14 / 2) / math.sqrt(3)


def by_name(config: Config, evaluation: Evaluation) -> dict:
    return {result.name: result for result in results.test_results(config, evaluation)}


def simple_evaluation(*layers: np.ndarray) -> Evaluation:
    each = {name: np.array(VALUES, np.float32) - i for i, name in enumerate(MEASURED)}
    return each | {f"means_{i}": means for i, means in enumerate(layers, 1)}


def test_means_and_standard_errors_over_images():
    config = configs.make(k=4, eval_k=77)
    by_title = by_name(config, simple_evaluation(np.zeros((3, 2))))
    expected = {
        "log-likelihood": (-3, "L_77", "nats per image", 77),
        "IWAE bound": (-4, "L_4", "nats per image", 4),
        "ELBO": (-5, "ELBO", "nats per image", 1),
        "KL(q(z|x) || p(z))": (-6, "KL", "nats per image", None),
        "reconstruction": (-7, "E_q log p(x|z)", "nats per image", None),
        "effective sample size": (-8, "ESS of 77", "draws", None),
    }
    for name, (value, symbol, unit, k) in expected.items():
        result = by_title[name]
        assert result.value == pytest.approx(value)
        assert result.standard_error == pytest.approx(ERROR)
        assert (result.symbol, result.unit, result.k) == (symbol, unit, k)
        assert (result.over, result.count, result.split) == ("images", 3, "test")
    bounds = {name for name, result in by_title.items() if result.bound}
    assert bounds == {"log-likelihood", "IWAE bound", "ELBO"}


def test_one_image_has_no_standard_error():
    evaluation = {"elbo": np.array([-1.0]), "means_1": np.zeros((1, 2))}
    result = by_name(Config(), evaluation)["ELBO"]
    assert (result.value, result.standard_error, result.over) == (-1, None, None)


def test_active_units_are_counted_per_layer():
    # Variances over four images: a^2 for columns of +-a.
    sign = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    below = sign * np.sqrt([0.02, 0.009, 0.0, 1.0])
    above = 5 + sign * np.sqrt([0.011, 0.0099])
    by_title = by_name(Config(), simple_evaluation(below, above))
    assert by_title["active units, layer 1 of 4"].value == 2
    assert by_title["active units, layer 2 of 2"].value == 1
    alone = by_name(Config(), simple_evaluation(below))
    assert alone["active units of 4"].value == 2
    assert alone["active units of 4"].unit == "units"


def test_the_use_of_codes_is_that_of_each_level():
    codes = {"codes_1": np.array([[0, 0], [1, 1]]), "codes_2": np.array([[0, 1, 2, 3]])}
    rows = {row.name: row.value for row in results.code_use(codes, {"num_codes": 8})}
    assert rows == {
        "perplexity of 8 codes, level 1": pytest.approx(2),
        "used codes of 8, level 1": 2,
        "perplexity of 8 codes, level 2": pytest.approx(4),
        "used codes of 8, level 2": 4,
    }
    alone = [row.name for row in results.code_use({"codes": codes["codes_1"]}, {"num_codes": 8})]
    assert alone == ["perplexity of 8 codes", "used codes of 8"]


@pytest.mark.parametrize(
    ("objective", "symbol", "k", "bound"),
    [
        ("iwae", "L_5", 5, "lower bound in expectation"),
        ("miwae", "L_5", 5, "lower bound in expectation"),
        ("elbo", "ELBO", 1, "lower bound in expectation"),
        ("beta_vae", "", None, None),
    ],
)
def test_the_training_bound_is_the_mean_of_the_last_pass(objective, symbol, k, bound):
    records = [{"step": 10, "bound": -9.0}, {"step": 20, "bound": -4.0}, {"step": 30, "bound": -2}]
    result = results.train_result(configs.make(objective=objective), records, 10, 0)
    assert result.value == pytest.approx(-3)
    assert (result.symbol, result.k, result.bound) == (symbol, k, bound)
    assert (result.unit, result.split) == ("nats per image", "train")


def test_defect_7_a_short_last_line_of_metrics_weighs_by_its_steps():
    records = [{"step": 10, "bound": -9.0}, {"step": 20, "bound": -4.0}, {"step": 22, "bound": -1}]
    result = results.train_result(Config(), records, 10, 0)
    assert result.value == pytest.approx((10 * -4 + 2 * -1) / 12)


def test_lines_of_metrics_that_are_lost_weigh_nothing():
    """Four lines of ten steps, the first and the third are lost; the last one is of three steps."""
    records = [{"step": 20, "bound": -9.0}, {"step": 33, "bound": -4.0}]
    result = results.train_result(Config(), records, 0, 0, 10)
    assert result.value == pytest.approx((10 * -9 + 3 * -4) / 13)
    assert math.isnan(results.train_result(Config(), records[:1], 20, 0, 10).value)
    assert math.isnan(results.train_result(Config(), [], 20, 0, 10).value)


def test_the_training_bound_of_one_replicate():
    records = [{"step": 10, "bound": [-9.0, -1.0]}, {"step": 20, "bound": [-4.0, -7.0]}]
    assert results.train_result(Config(), records, 0, 1).value == pytest.approx(-4)
    assert results.train_result(Config(), records, 10, 0).value == pytest.approx(-4)
