"""What `--help` prints: shared flags in sections, then the model families and the objectives.

`--model=NAME --help` and `--objective=NAME --help` show the settings of the families and objectives
that are named; without a name each is listed with one line.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from elbo_lab import configs, losses, schedules
from elbo_lab.cli.validation import CHOICES
from elbo_lab.configs import SECTIONS, Config
from elbo_lab.data import DATASETS
from elbo_lab.models import MODELS
from elbo_lab.objective_options import OBJECTIVE_OPTIONS
from elbo_lab.options import options_of, values_of

Section = Mapping[str, str]  # flag -> what it means


def text(
    description: str,
    module: str,
    around: tuple[Mapping[str, Section], Mapping[str, Section]],
    defaults: Mapping[str, Any],
) -> str:
    """The script's flags: those of a configuration and of a run in sections, and its own.

    Args:
      description: of the script.
      module: that defines the flags of the sections.
      around: the sections before and after those of a configuration.
      defaults: of the flags of `around`.
    """
    lines = [description.strip()]
    by_module = flags.FLAGS.flags_by_module_dict()
    names = {flag.name for flag in by_module.get(module, [])}
    before, after = around
    lines += _sections(before, names, {n: flags.FLAGS[n].default for n in defaults if n in names})
    lines += _sections(SECTIONS, names, vars(Config))
    if "model" in names:
        lines += _kinds("model", "Model families", MODELS, _family_line, _family_options)
        lines += _kinds(
            "objective", "Objectives", OBJECTIVE_OPTIONS, _objective_line, OBJECTIVE_OPTIONS.get
        )
    lines += _sections(after, names, defaults)
    # absl's names of the main module, and of those of ours that it takes flags from.
    own = [n for n in by_module if n == sys.argv[0] or n.startswith("elbo_lab.") and n != module]
    scripts = [flag for name in own for flag in by_module[name]]
    lines += ["", "Flags:"] if scripts else []
    for flag in scripts:
        lines += _flag(flag.name, flag.default, flag.help)
    return "\n".join(lines)


def shared_text(name: str) -> str:
    """What a shared field of a configuration means."""
    found = next(section[name] for section in SECTIONS.values() if name in section)
    found = found.format(datasets=", ".join(DATASETS)) if "{" in found else found
    return found + _choices(CHOICES.get(name))


def option_text(name: str) -> str:
    """What a setting means, in the words of the first family or objective that has it."""
    about = (options_of(settings).get(name) for settings in configs.option_classes())
    return next(each.help for each in about if each is not None)


def _sections(
    sections: Mapping[str, Section], names: set[str], defaults: Mapping[str, Any]
) -> list[str]:
    lines = []
    for title, section in sections.items():
        shown = [name for name in section if name in names]
        lines += ["", f"{title}:"] if shown else []
        for name in shown:
            meaning = shared_text(name) if name in configs.SHARED else section[name]
            lines += _flag(name, defaults[name], meaning)
    return lines


def _kinds(flag: str, title: str, kinds: Mapping[str, Any], line, settings) -> list[str]:
    """The settings of the families or objectives that are named; a list of all if none is."""
    chosen = [name for name in _named(flag, sys.argv[1:]) if name in kinds]
    if not chosen:
        lines = ["", f"{title} (--{flag}=NAME --help shows the settings of one):"]
        width = max(map(len, kinds)) + 2
        for name in kinds:
            lines += textwrap.wrap(
                line(name),
                80,
                initial_indent=f"  {name:<{width}}",
                subsequent_indent=" " * (width + 2),
            )
        return lines
    lines = []
    for name in chosen:
        options = settings(name)
        has = "" if options_of(options) else " (it has none)"
        lines += ["", f"Settings of --{flag}={name}{has}:"]
        defaults = values_of(options())
        for setting, about in options_of(options).items():
            course = f"; {schedules.SYNTAX} (constant:4 is 4)" if about.traced else ""
            meaning = about.help + course + _choices(about.choices)
            lines += _flag(setting, defaults[setting], meaning)
    return lines


def _named(flag: str, arguments: Sequence[str]) -> list[str]:
    """The values of a flag on a command line, which need not be valid otherwise."""
    values = []
    for i, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == flag and argument.startswith("-"):
            values += (value if equals else "".join(arguments[i + 1 : i + 2])).split(",")
    return [value.strip() for value in values]


def _family_options(name: str) -> type:
    return MODELS[name].options


def _family_line(name: str) -> str:
    family = MODELS[name]
    if family.objective is None:
        return f"{family.about}; trained by a loss of its own"
    return f"{family.about}; if not given, objective {family.objective} and k {family.k}"


def _objective_line(name: str) -> str:
    entry = losses.CATALOGUE.get(name)
    settings = ", ".join(options_of(OBJECTIVE_OPTIONS[name]))
    words = "decodes E[z|x], without draws; docs/systems.md" if entry is None else entry.paper
    return f"{words} ({settings})" if settings else words


def _choices(choices: Sequence[str] | None) -> str:
    return f" ({', '.join(choices)})" if choices else ""


def _flag(name: str, default: Any, meaning: str) -> list[str]:
    wrapped = textwrap.wrap(meaning, 80, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return [f"  --{name}{'' if default is None else f'={configs.shown(default)}'}", *wrapped]
