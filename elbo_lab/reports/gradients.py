"""A study of gradient estimators as a table, as a summary for JSON, and as figures."""

import math
from pathlib import Path
from typing import Any

from elbo_lab.devices import setup
from elbo_lab.evaluation.gradients import gradient_study
from elbo_lab.evaluation.gradients.gradient_statistics import rows_of
from elbo_lab.evaluation.gradients.gradient_study import Row, Study, Subject
from elbo_lab.reports.gradient_figures import Panel, panels

_HEAD = ("", "K", "M", "SNR", "DSNR", "variance", "bias, %", "p", "bias?", "ms", "SNR^2/s")


def table(name: str, study: Study, subject: Subject, rows: list[Row]) -> str:
    """Text for a terminal: one block per group of parameters, and a legend of the columns."""
    lines = [f"{study.objective} at {name}, {len(subject.x)} examples; {setup.describe()}"]
    for group in _groups(rows):
        own = [row for row in rows if row.group == group]
        lines.append(f"{group}, {own[0].statistics.num_parameters:,} parameters")
        lines += _aligned([_HEAD, *(_cells(row) for row in own)], has_m=_varied(study) == "m")
        slopes = _slope_line(study, rows, group)
        if slopes:
            lines.append(slopes)
    return "\n".join([*lines, "", *_legend(study, rows)])


def summary(name: str, study: Study, subject: Subject, rows: list[Row]) -> dict[str, Any]:
    """Settings and numbers of a study, for JSON."""
    by = _varied(study)
    slopes = _slopes(study, rows) if by else {}
    return {
        "subject": name,
        "study": study._asdict(),
        "examples": len(subject.x),
        "device": setup.describe(),
        "level": gradient_study.LEVEL,
        "rows": [row._asdict() for row in rows],
        "snr_slopes": [
            {"group": group, "estimator": estimator, "by": by, "slope": slope}
            for (group, estimator), slope in slopes.items()
        ],
    }


def figures(folder: Path, study: Study, rows: list[Row]) -> None:
    """Draws SNR, directional SNR, variance and efficiency against K (or M) as PNG files.

    If both vary, K is the horizontal axis and the rows of the smallest M are shown.
    """
    by = _varied(study) or "k"
    fixed = "m" if by == "k" else "k"
    least = min(getattr(row, fixed) for row in rows)
    shown = [row for row in rows if getattr(row, fixed) == least]
    statistics = {
        "snr": ("signal-to-noise ratio", lambda row: row.statistics.snr),
        "dsnr": ("directional SNR", lambda row: row.statistics.dsnr),
        "variance": ("variance, summed", lambda row: row.statistics.variance),
        "efficiency": ("SNR\N{SUPERSCRIPT TWO} per second", lambda row: row.efficiency),
    }
    for file, (label, value) in statistics.items():
        parts = []
        for group in _groups(shown):
            own = [row for row in shown if row.group == group]
            curves = {
                name: [(getattr(row, by), value(row)) for row in own if row.estimator == name]
                for name in dict.fromkeys(row.estimator for row in own)
            }
            is_snr = file == "snr"
            floor = own[0].statistics.snr_floor if is_snr else None
            parts.append(Panel(group, curves, (0.5, -0.5) if is_snr else (), floor))
        panels(folder / f"{file}.png", parts, by.upper(), label)


def _aligned(lines: list[tuple[str, ...]], has_m: bool) -> list[str]:
    """Lines of cells as texts with aligned columns, without the column of M unless it varies."""
    columns = list(zip(*lines, strict=True))
    if not has_m:
        del columns[_HEAD.index("M")]
    widths = [max(map(len, column)) for column in columns]
    texts = []
    for first, *numbers in zip(*columns, strict=True):
        cells = [first.ljust(widths[0])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        texts.append("  ".join(cells).rstrip())
    return texts


def _cells(row: Row) -> tuple[str, ...]:
    """A row as texts in the columns of _HEAD."""
    statistics, bias = row.statistics, row.bias
    share = f"{100 * bias.along:+.1f} +- {100 * bias.along_error:.1f}"
    return (
        row.estimator,
        str(row.k),
        str(row.m),
        _number(statistics.snr) + ("*" if statistics.snr < 3 * statistics.snr_floor else ""),
        _number(statistics.dsnr),
        _number(statistics.variance),
        share,
        f"{bias.p_value:.1g}",
        row.verdict,
        _number(1e3 * row.seconds),
        _number(row.efficiency),
    )


def _number(value: float) -> str:
    """Three significant digits; "" for NaN, such as the SNR of a gradient of zeros."""
    return "" if math.isnan(value) else f"{value:.3g}"


def _legend(study: Study, rows: list[Row]) -> list[str]:
    """The meaning of the columns, in lines."""
    oracles = {row.oracle for row in rows}
    against = " (dreg with reparam, others with dreg)" if len(oracles) > 1 else f", {oracles.pop()}"
    finest = [row.bias.resolution for row in rows if math.isfinite(row.bias.resolution)]
    lines = [
        f"SNR   mean over parameters of |mean| / std of {study.num_gradients:,} gradients;",
        f"      {rows[0].statistics.snr_floor:.2g} where there is no signal (*: below three times)",
        "DSNR  mean of |part along the bound's gradient| / |part across it|",
        f"bias  along the bound's gradient, in % of it, +- one standard error, against "
        f"{study.oracle_gradients:,}",
        f"      gradients of an unbiased estimator{against}",
        f'p     of Hotelling\'s T^2 along {len(rows_of(0, 1))} directions; "biased" at '
        f"{gradient_study.LEVEL:.0%} over all tests together",
    ]
    if finest:
        lines.append(
            f"      biases along the gradient from {100 * min(finest):.2g}% (the finest test) to "
            f"{100 * max(finest):.2g}% of it are found in 9 of 10"
        )
    if any(row.verdict == "no bound" for row in rows):
        lines.append(
            "      no bound: it follows no bound's gradient; its distance to this one is shown"
        )
    return lines


def _slope_line(study: Study, rows: list[Row], group: str) -> str:
    """The exponents of K (or M) in the SNR of each estimator; "" if neither or both vary."""
    by = _varied(study)
    if by is None:
        return ""
    texts = [
        f"{estimator} {slope:+.2f}"
        for (slope_group, estimator), slope in _slopes(study, rows).items()
        if slope_group == group and math.isfinite(slope)
    ]
    return f"SNR as a power of {by.upper()}: {', '.join(texts)}" if texts else ""


def _slopes(study: Study, rows: list[Row]) -> dict[tuple[str, str], float]:
    return gradient_study.slopes(rows, _varied(study))


def _varied(study: Study) -> str | None:
    """ "k" or "m", if it varies over the study's cells and the other does not; else None."""
    ms, ks = {m for m, _ in study.cells}, {k for _, k in study.cells}
    if len(ks) > 1 and len(ms) == 1:
        return "k"
    if len(ms) > 1 and len(ks) == 1:
        return "m"
    return None


def _groups(rows: list[Row]) -> list[str]:
    """The groups of parameters, in their order."""
    return list(dict.fromkeys(row.group for row in rows))
