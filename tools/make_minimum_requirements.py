"""Prints the least versions that the package allows, as a requirements file.

    python tools/make_minimum_requirements.py [EXTRA ...] > minimum.txt

What setup.cfg asks for, by itself and in the named extras, with == in place of >=.
"""

import configparser
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
EXTRAS = "options.extras_require"


def floors(extras: list[str]) -> dict[str, str]:
    """Distribution -> its least version, of a plain install and of the named extras.

    Raises:
      ValueError: an extra that setup.cfg does not have, a requirement that is no lower bound, or
        two lower bounds of one distribution.
    """
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    least = {}
    for line in _lines(config, "options", "install_requires") + _of_extras(config, extras):
        bound = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([A-Za-z0-9.]+)", line)
        if bound is None:
            raise ValueError(f"{line!r} is no lower bound, NAME>=VERSION.")
        name, version = bound.groups()
        if least.setdefault(name, version) != version:
            raise ValueError(f"{name} has two lower bounds, {least[name]} and {version}.")
    return least


def _of_extras(config: configparser.ConfigParser, extras: list[str]) -> list[str]:
    """The requirements of extras; one of the form elbo_lab[EXTRA,...] stands for those extras'."""
    found = []
    for extra in extras:
        if not config.has_option(EXTRAS, extra):
            valid = ", ".join(config.options(EXTRAS))
            raise ValueError(f"{extra!r} is no extra of setup.cfg; choose from {valid}.")
        for line in _lines(config, EXTRAS, extra):
            own = re.fullmatch(r"elbo_lab\[([a-z,]+)\]", line)
            found += _of_extras(config, own[1].split(",")) if own else [line]
    return found


def _lines(config: configparser.ConfigParser, section: str, option: str) -> list[str]:
    """The requirements that an option lists, or those of the file that it names."""
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
