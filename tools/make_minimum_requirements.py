"""Prints the minimum versions that the package allows, as a requirements file.

    python tools/make_minimum_requirements.py [EXTRA ...] > minimum.txt

The requirements are those of setup.cfg and of the named extras, with == instead of >=.
"""

import configparser
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
EXTRAS = "options.extras_require"


def floors(extras: list[str]) -> dict[str, str]:
    """Distribution -> its minimum version, for a plain install and the named extras.

    Raises:
      ValueError: setup.cfg does not have an extra, a requirement is not a lower bound, or a
        distribution has two lower bounds.
    """
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    minimum = {}
    for line in _lines(config, "options", "install_requires") + _extra_lines(config, extras):
        bound = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([A-Za-z0-9.]+)", line)
        if bound is None:
            raise ValueError(f"{line!r} is not a lower bound, NAME>=VERSION.")
        name, version = bound.groups()
        if minimum.setdefault(name, version) != version:
            raise ValueError(f"{name} has two lower bounds, {minimum[name]} and {version}.")
    return minimum


def _extra_lines(config: configparser.ConfigParser, extras: list[str]) -> list[str]:
    """The requirements of extras. A line elbo_lab[EXTRA,...] is replaced by those extras' lines."""
    lines = []
    for extra in extras:
        if not config.has_option(EXTRAS, extra):
            valid = ", ".join(config.options(EXTRAS))
            raise ValueError(f"An extra must be one of {valid}; got {extra!r}.")
        for line in _lines(config, EXTRAS, extra):
            other_extras = re.fullmatch(r"elbo_lab\[([a-z,]+)\]", line)
            if other_extras:
                lines += _extra_lines(config, other_extras[1].split(","))
            else:
                lines.append(line)
    return lines


def _lines(config: configparser.ConfigParser, section: str, option: str) -> list[str]:
    """The requirements that an option lists, or that the file lists which it names."""
    text = config.get(section, option)
    if text.startswith("file:"):
        text = (ROOT / text.removeprefix("file:").strip()).read_text()
    return [line.strip() for line in text.splitlines() if line.strip()]


if __name__ == "__main__":
    try:
        for name, version in floors(sys.argv[1:]).items():
            print(f"{name}=={version}")
    except ValueError as error:
        sys.exit(f"Error: {error}")
