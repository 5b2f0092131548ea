"""A study with a computation: its folder, its stored results, its page."""

import json

import pytest

from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.studies import computed
from elbo_lab.studies.study import Computation, Study

FIGURE = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'


def study_of(calls: list[int]) -> Study:
    """A study whose result is K, and which notes each computation."""

    def results(config, on_progress):
        calls.append(config.k)
        on_progress(1.0)
        return {"value": config.k}

    computation = Computation(
        results,
        lambda found: f"value {found['value']}",
        lambda found: FIGURE,
        {"value": int},
        lambda config: None,
    )
    return Study("made", "Is <it>?", {"k": "5"}, caption="A figure.", computation=computation)


def conduct(study, path, k="5", overwrite=False, results_dir=None):
    settings = {"k": k}
    command = f"python -m experiments.study made --k={k} --workdir=/a"
    computed.conduct(
        study, settings, config_of(settings), command, str(path), overwrite, results_dir
    )


def test_a_complete_study_is_not_computed_again(tmp_path, capsys):
    calls, path = [], tmp_path / "study"
    study = study_of(calls)
    conduct(study, path, results_dir=tmp_path / "results")
    lines = f"value 5\n\nreport: {path / 'report.html'}\nfigure: {path / 'answer.svg'}\n"
    assert capsys.readouterr().out == lines
    page = (path / "report.html").read_text()
    assert "<h1>Is &lt;it&gt;?</h1>" in page and "value 5" in page and "A figure." in page
    assert (path / "answer.svg").read_text().startswith("<svg ")
    stored = json.loads((path / "study.json").read_text())
    assert stored["results"] == {"value": 5} and stored["settings"] == {"k": "5"}
    kept = computed.read(study, tmp_path / "results")
    assert kept["results"] == {"value": 5}
    assert kept["command"] == "python -m experiments.study made --k=5"
    (path / "report.html").unlink()
    conduct(study, path)
    assert capsys.readouterr().out == lines and calls == [5]
    assert (path / "report.html").exists()
    conduct(study, path, overwrite=True)
    assert calls == [5, 5]


def test_a_folder_of_something_else_is_refused(tmp_path):
    calls, path = [], tmp_path / "study"
    study = study_of(calls)
    conduct(study, path)
    with pytest.raises(UserError, match=r"other settings \(--k=5\); use --overwrite"):
        conduct(study, path, k="7")
    conduct(study, path, k="7", overwrite=True)
    (path / "study.json").write_text("{}")
    with pytest.raises(UserError, match="study.json is damaged"):
        conduct(study, path, k="7")
    (path / "notes").write_text("")
    with pytest.raises(UserError, match="it holds notes"):
        conduct(study, path, k="7", overwrite=True)
    assert calls == [5, 7] and (path / "notes").exists()
    assert computed.read(study, tmp_path) is None


def test_folders_are_named_by_settings():
    study = study_of([])
    names = {computed.default_name(study, {"k": k}) for k in ("5", "7")}
    assert len(names) == 2 and all(name.startswith("runs/made-") for name in names)
