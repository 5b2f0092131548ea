"""The files of text in a run's directory.

text.json    the vocabulary and the lengths, by which tokens of the run are read without its data
samples.txt  draws of the model, and reconstructions, in place of pictures
"""

from pathlib import Path

from elbo_lab import files, json_files
from elbo_lab.data import Text
from elbo_lab.runs import rundir

_KIND = {"vocabulary": str, "length": int, "line_length": int}


def write(path: Path, text: Text) -> None:
    """Writes text.json into a run's directory.

    Raises:
      UserError: the file cannot be written.
    """
    files.write_summary(path / rundir.TEXT, text._asdict())


def read(path: str | Path) -> Text:
    """The vocabulary of a run of texts, from its directory alone.

    `read(path).decode(tokens)` gives the texts of tokens [n, T].

    Raises:
      UserError: there is no text.json, or it is damaged.
    """
    stored = json_files.read(Path(path).expanduser() / rundir.TEXT, _KIND)
    return Text(**{name: stored[name] for name in _KIND})


def shown(text: Text, poem: str) -> str:
    """A poem, or its beginning, on one line, with spaces between its lines."""
    return " ".join(text.lines(poem))


def write_samples(path: Path, name: str, sections: dict[str, list[str]]) -> None:
    """Writes samples.txt into a run's directory.

    Args:
      path: the directory.
      name: of the run, for the first line.
      sections: title -> lines below it.

    Raises:
      UserError: the file cannot be written.
    """
    blocks = ["\n".join((title, "", *lines)) for title, lines in sections.items()]
    content = "\n\n".join((f"Run {name}", *blocks)) + "\n"
    files.write_atomically(path / rundir.POEMS, content.encode())
