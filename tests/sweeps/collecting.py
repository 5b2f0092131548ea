"""The content of sweep.json of a folder, made without processes, and a parser of its page."""

import html.parser

import numpy as np

from elbo_lab import files
from elbo_lab.sweeps import sweep_folder, sweep_results
from tests.sweeps import made_sweeps

DIGESTS = {"blobs.npz": made_sweeps.DIGEST}
COMMAND = "python -m experiments.sweep --objective='<b>&'"


def collected(folder, cells, baseline=0, failed=None):
    store = sweep_folder.read(folder, DIGESTS)
    return files.jsonable(sweep_results.collect(cells, baseline, store, failed or {}, COMMAND, 2))


def means(values, name, field="log_likelihood"):
    return np.array([np.mean(values[name, seed][field]) for seed in range(3)])


class Page(html.parser.HTMLParser):
    """A parsed page; asserts that every tag is closed.

    Attributes:
      rows: texts of the cells of each table row.
      ids: all ids.
      tags: (name, attributes) of all tags.
      addresses: all links and sources.
      text: all text but the style sheet.
    """

    VOID = ("meta", "link", "br", "use", "path")

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.ids, self.tags, self.addresses = [], [], [], [], []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.addresses += [v for n, v in attrs.items() if n in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "th" in self.open or "td" in self.open:
            self.rows[-1][-1] += data
        if "style" not in self.open:
            self.text += data
