"""Runs a study with a computation, and reports it.

The study's folder holds
  study.json   the settings and the results; its presence means that the study is complete
  report.html  the page of the study
  answer.svg   the figure
"""

import contextlib
import datetime
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

import elbo_lab
from elbo_lab import json_files
from elbo_lab.configs import Config
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.files import jsonable, write_atomically, write_summary
from elbo_lab.reports import html_parts, svg_figures
from elbo_lab.reports.html_parts import section, text
from elbo_lab.runs import rundir
from elbo_lab.runs.progress import Progress
from elbo_lab.studies import stored_results
from elbo_lab.studies.study import Study, Texts
from elbo_lab.sweeps import sweep_folder

STUDY = "study.json"
_OWN = (STUDY, sweep_folder.REPORT, sweep_folder.FIGURE)
_CONDITIONS = {"command": str, "date": str, "device": str, "elbo_lab": str, "jax": str}
_CONDITIONS |= {"seconds": float, "settings": dict[str, str]}
# Progress is counted in hundredths.
_WHOLE = 100


def kind(study: Study) -> dict[str, Any]:
    """What study.json must hold, as `json_files` checks it."""
    return {**_CONDITIONS, "results": study.computation.kind}


def default_name(study: Study, settings: Texts) -> str:
    """The default folder of a study with these settings, e.g. runs/likelihoods-1a2b3c4d."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return os.path.join("runs", f"{study.name}-{digest}")


def conduct(
    study: Study,
    settings: Texts,
    config: Config,
    command: str,
    workdir: str,
    overwrite: bool,
    results_dir: Path | None,
) -> None:
    """Computes what the folder does not hold, writes the report, and prints the table.

    Args:
      study: with a computation.
      settings: flag -> text.
      config: of the settings.
      command: the command line, for the report.
      workdir: the study's folder.
      overwrite: True to compute anew what the folder holds.
      results_dir: folder for the content of study.json under the study's name; None: no such file.

    Raises:
      UserError: a folder cannot be used, or holds the study with other settings.
    """
    with claim(workdir, overwrite) as path:
        content = stored(study, settings, path)
        if content is None:
            content = computed(study, settings, config, command)
            write_summary(path / STUDY, content)
        if results_dir is not None:
            kept = content | {"command": stored_results.shown_command(content["command"])}
            stored_results.write(results_dir / f"{study.name}.json", kept)
        figure = study.computation.figure(content["results"])
        table = study.computation.table(content["results"])
        lines = [f"report: {path / sweep_folder.REPORT}", f"figure: {path / sweep_folder.FIGURE}"]
        if not rundir.is_read_only(path):
            page_text = page(study, content, figure, table)
            write_atomically(path / sweep_folder.REPORT, page_text.encode())
            standalone = svg_figures.standalone(figure).encode()
            write_atomically(path / sweep_folder.FIGURE, standalone)
        print("\n\n".join([table, "\n".join(lines)]))


@contextlib.contextmanager
def claim(workdir: str, overwrite: bool) -> Iterator[Path]:
    """Locks a study's folder for this process, and creates it or checks that it is a study's.

    With `overwrite`, an earlier study in it is deleted. A complete study in a read-only folder is
    opened for reading.

    Raises:
      UserError: it cannot be written, is in use, or holds something else.
    """
    path = Path(workdir).expanduser()
    if not overwrite and (path / STUDY).exists() and rundir.is_read_only(path):
        yield path
        return
    with rundir.locked(workdir) as path:
        names = sorted(os.listdir(path))
        foreign = [n for n in names if n != ".lock" and n.removesuffix(".tmp") not in _OWN]
        if foreign:
            raise UserError(
                f"--workdir={workdir} is not empty and not the folder of a computed study (it "
                f"holds {foreign[0]}); choose a new or empty one."
            )
        for name in names if overwrite else []:
            if name in _OWN:
                (path / name).unlink()
        yield path


def stored(study: Study, settings: Texts, path: Path) -> dict[str, Any] | None:
    """The content of study.json; None if the folder has none.

    Raises:
      UserError: it is damaged, or of other settings.
    """
    file = path / STUDY
    if not file.exists():
        return None
    content = json_files.read(file, kind(study))
    if content["settings"] != settings:
        own = " ".join(f"--{name}={value}" for name, value in content["settings"].items())
        raise UserError(
            f"--workdir={path} holds the study with other settings ({own}); use --overwrite to "
            "replace it, or another folder."
        )
    return content


def computed(study: Study, settings: Texts, config: Config, command: str) -> dict[str, Any]:
    """The content of study.json, computed anew."""
    progress = Progress(study.name, _WHOLE, 0, "%")

    def on_progress(part: float) -> None:
        progress.to(round(_WHOLE * part))

    start = time.perf_counter()
    try:
        results = study.computation.results(config, on_progress)
    finally:
        progress.close()
    return jsonable(
        {
            "study": {"name": study.name, "question": study.question},
            "settings": settings,
            "results": results,
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "device": setup.describe(),
            "elbo_lab": elbo_lab.__version__,
            "jax": jax.__version__,
            "seconds": time.perf_counter() - start,
        }
    )


def page(study: Study, content: dict[str, Any], figure: str, table: str) -> str:
    """The page: the question, the figure, the table and the conditions, as an HTML document."""
    conditions = {
        "settings": " ".join(f"--{name}={value}" for name, value in content["settings"].items()),
        "device": content["device"],
        "time": f"{content['seconds']:.0f} s",
        "versions": f"elbo_lab {content['elbo_lab']}, JAX {content['jax']}",
        "date": content["date"],
    }
    items = "".join(f"<dt>{text(n)}</dt><dd>{text(v)}</dd>" for n, v in conditions.items())
    parts = [
        f"<h1>{text(study.question)}</h1>",
        html_parts.figure(figure, study.caption, study.question),
        section("results", "Results", f"<pre>{text(table)}</pre>"),
        section("conditions", "Conditions", f"<dl>{items}</dl>"),
        section("commands", "Command", f"<pre>{text(content['command'])}</pre>"),
    ]
    return html_parts.document(study.question, parts)


def read(study: Study, folder: Path) -> dict[str, Any] | None:
    """The content of the study's file in a folder of results; None if there is none.

    Raises:
      UserError: it cannot be read, or is damaged.
    """
    return stored_results.read(folder / f"{study.name}.json", kind(study))
