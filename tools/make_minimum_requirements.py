"""Prints the least versions that the package allows, as a requirements file.

    python tools/make_minimum_requirements.py [EXTRA ...] > minimum.txt

What requirements.txt and the named extras of setup.cfg ask for, with == in place of >=.
"""

import configparser
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]


def floors(extras: list[str]) -> dict[str, str]:
    """Distribution -> its least version, of the package and of the named extras.

    Raises:
      ValueError: an extra that setup.cfg does not have, or a requirement that is no lower bound.
    """
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    section = "options.extras_require"
    for extra in extras:
        if not config.has_option(section, extra):
            valid = ", ".join(config.options(section))
            raise ValueError(f"{extra!r} is no extra of setup.cfg; choose from {valid}.")
        lines += config.get(section, extra).splitlines()
    found = {}
    for line in filter(None, map(str.strip, lines)):
        bound = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([A-Za-z0-9.]+)", line)
        if bound is None:
            raise ValueError(f"{line!r} is no lower bound, NAME>=VERSION.")
        found[bound[1]] = bound[2]
    return found


if __name__ == "__main__":
    try:
        for name, version in floors(sys.argv[1:]).items():
            print(f"{name}=={version}")
    except ValueError as error:
        sys.exit(f"Error: {error}")
