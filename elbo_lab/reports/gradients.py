"""What a study of gradient estimators shows: a table, a summary for JSON, and figures."""

import math
from pathlib import Path
from typing import Any

from elbo_lab.devices import setup
from elbo_lab.evaluation.gradients import gradient_study
from elbo_lab.evaluation.gradients.gradient_statistics import rows_of
from elbo_lab.evaluation.gradients.gradient_study import Row, Study, Subject
from elbo_lab.reports.gradient_figures import Panel, panels

HEAD = ("", "K", "M", "SNR", "DSNR", "variance", "bias, %", "p", "bias?", "ms", "SNR^2/s")


def table(name: str, study: Study, subject: Subject, rows: list[Row]) -> str:
    """Text for a terminal: one block per group of parameters, and what its columns mean."""
    blocks = [f"{study.objective} at {name}, {len(subject.x)} examples; {setup.describe()}"]
    for group in _groups(rows):
        found = [row for row in rows if row.group == group]
        lines = [HEAD, *(_cells(row) for row in found)]
        kept = [i for i in range(len(HEAD)) if HEAD[i] != "M" or _varied(study) == "m"]
        widths = [max(len(line[i]) for line in lines) for i in kept]
        number = found[0].statistics.num_parameters
        blocks.append(f"{group}, {number:,} parameters")
        blocks += [
            "  ".join(
                line[i].ljust(width) if i == 0 else line[i].rjust(width)
                for i, width in zip(kept, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        blocks.append(_slope_line(study, rows, group))
    return "\n".join([*filter(None, blocks), "", *_legend(study, rows)])


def summary(name: str, study: Study, subject: Subject, rows: list[Row]) -> dict[str, Any]:
    """All figures, for JSON."""
    by = _varied(study)
    return {
        "subject": name,
        "study": study._asdict(),
        "examples": len(subject.x),
        "device": setup.describe(),
        "level": gradient_study.LEVEL,
        "rows": [row._asdict() for row in rows],
        "snr_slopes": [
            {"group": group, "estimator": estimator, "by": by, "slope": slope}
            for (group, estimator), slope in (_slopes(study, rows) if by else {}).items()
        ],
    }


def figures(folder: Path, study: Study, rows: list[Row]) -> None:
    """SNR, directional SNR, variance and efficiency against K (or M), as PNG."""
    by = _varied(study) or "k"
    first = {row.m if by == "k" else row.k for row in rows}
    shown = [row for row in rows if (row.m if by == "k" else row.k) == min(first)]
    drawn = {
        "snr": ("signal-to-noise ratio", lambda row: row.statistics.snr),
        "dsnr": ("directional SNR", lambda row: row.statistics.dsnr),
        "variance": ("variance, summed", lambda row: row.statistics.variance),
        "efficiency": ("SNR\N{SUPERSCRIPT TWO} per second", lambda row: row.efficiency),
    }
    for file, (label, value) in drawn.items():
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


def _cells(row: Row) -> tuple[str, ...]:
    found, bias = row.statistics, row.bias
    share = f"{100 * bias.along:+.1f} +- {100 * bias.along_error:.1f}"
    return (
        row.estimator,
        str(row.k),
        str(row.m),
        _number(found.snr) + ("*" if found.snr < 3 * found.snr_floor else ""),
        _number(found.dsnr),
        _number(found.variance),
        share,
        f"{bias.p_value:.1g}",
        row.verdict,
        _number(1e3 * row.seconds),
        _number(row.efficiency),
    )


def _number(value: float) -> str:
    """Three digits; nothing where there is no such number, as the SNR of a gradient of zeros."""
    return "" if math.isnan(value) else f"{value:.3g}"


def _legend(study: Study, rows: list[Row]) -> list[str]:
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
        lines.append("      no bound: it follows none, and its distance to this one is shown")
    return lines


def _slope_line(study: Study, rows: list[Row], group: str) -> str:
    by = _varied(study)
    found = {n: s for (g, n), s in _slopes(study, rows).items() if g == group} if by else {}
    known = [f"{name} {slope:+.2f}" for name, slope in found.items() if math.isfinite(slope)]
    return f"SNR as a power of {by.upper()}: {', '.join(known)}" if known else ""


def _slopes(study: Study, rows: list[Row]) -> dict[tuple[str, str], float]:
    return gradient_study.slopes(rows, _varied(study))


def _varied(study: Study) -> str | None:
    """The letter that changes while the other does not."""
    ms, ks = ({cell[i] for cell in study.cells} for i in (0, 1))
    if len(ks) > 1 and len(ms) == 1:
        return "k"
    return "m" if len(ms) > 1 and len(ks) == 1 else None


def _groups(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))
