"""The text of `--help`: shared flags in sections, then model families, objectives and optimizers.

`--model=NAME --help`, `--objective=NAME --help` and `--optimizer=NAME --help` show the settings of
what is named, and what the shared flags are with it by default. Without a name, every family,
objective and optimizer is listed on one line.
"""

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from elbo_lab import configs, losses, schedules
from elbo_lab.cli.validation import CHOICES
from elbo_lab.config_sections import SECTIONS
from elbo_lab.configs import Config
from elbo_lab.data import DATASETS
from elbo_lab.models import MODELS
from elbo_lab.objective_options import AUTOENCODER, GAN, OBJECTIVE_OPTIONS
from elbo_lab.optimizer_options import ABOUT, OPTIMIZER_OPTIONS
from elbo_lab.options import options_of, values_of

Section = Mapping[str, str]  # flag -> what it means
# What the objectives outside of the catalogue are.
_WITHOUT_DRAWS = {
    AUTOENCODER: "decodes E[z|x], without draws; docs/systems/index.md",
    GAN: "draws of p(z) against a critic, without q(z|x); docs/systems/gan.md",
}


def text(
    description: str,
    module: str,
    around: tuple[Mapping[str, Section], Mapping[str, Section]],
    defaults: Mapping[str, Any],
) -> str:
    """The help page of a script: the sections of shared flags, then the script's own flags.

    Args:
      description: the script's docstring, printed first.
      module: the module that defines the flags of the sections.
      around: the sections before and after those of a configuration.
      defaults: flag -> default, for the flags of `around`.
    """
    lines = [description.strip()]
    by_module = flags.FLAGS.flags_by_module_dict()
    names = {flag.name for flag in by_module.get(module, [])}
    before, after = around
    lines += _sections(before, names, {n: flags.FLAGS[n].default for n in defaults if n in names})
    lines += _sections(SECTIONS, names, _shared_defaults())
    if "model" in names:
        lines += _kinds("model", "Model families", _family_line)
        lines += _kinds("objective", "Objectives", _objective_line)
        lines += _kinds("optimizer", "Optimizers", _optimizer_line)
    lines += _sections(after, names, defaults)
    # absl calls the main module by sys.argv[0].
    sources = [
        name
        for name in by_module
        if name == sys.argv[0] or (name.startswith("elbo_lab.") and name != module)
    ]
    script_flags = [flag for name in sources for flag in by_module[name]]
    lines += ["", "Flags:"] if script_flags else []
    for flag in script_flags:
        lines += _flag(flag.name, flag.default, flag.help)
    return "\n".join(lines)


def shared_text(name: str) -> str:
    """The help text of a shared field of a configuration."""
    meaning = next(section[name] for section in SECTIONS.values() if name in section)
    meaning = meaning.format(datasets=", ".join(DATASETS)) if "{" in meaning else meaning
    return meaning + _choices(CHOICES.get(name))


def option_text(name: str) -> str:
    """The help text of a setting, from the first class of settings that has it."""
    options = (options_of(settings).get(name) for settings in configs.option_classes())
    return next(option.help for option in options if option is not None)


def _shared_defaults() -> Mapping[str, Any]:
    """The defaults of the shared flags: those of the family, objective and optimizer that the
    command line names. Where it names several, what depends on the choice is None.
    """
    named = {flag: _named(flag) for flag in configs.settings_classes()}
    if any(len(names) > 1 for names in named.values()):
        return vars(Config)
    return vars(Config(**{flag: names[0] for flag, names in named.items() if names}))


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


def _kinds(flag: str, title: str, describe: Callable[[str], str]) -> list[str]:
    """The lines about model families, objectives or optimizers.

    Args:
      flag: "model", "objective" or "optimizer".
      title: the title of the list.
      describe: name -> its description in the list.

    Returns:
      The settings of those that the command line names, or a list of all if it names none.
    """
    classes = configs.settings_classes()[flag]
    if chosen := _named(flag):
        return [line for name in chosen for line in _settings(flag, name, classes[name])]
    lines = ["", f"{title} (--{flag}=NAME --help shows the settings of one):"]
    width = max(map(len, classes)) + 2
    for name in classes:
        lines += textwrap.wrap(
            describe(name),
            80,
            initial_indent=f"  {name:<{width}}",
            subsequent_indent=" " * (width + 2),
        )
    return lines


def _settings(flag: str, name: str, options_class: type) -> list[str]:
    """The lines about the settings of one family, objective or optimizer."""
    options, defaults = options_of(options_class), values_of(options_class())
    none = "" if options else " (it has none)"
    lines = ["", f"Settings of --{flag}={name}{none}:"]
    for setting, option in options.items():
        course = f"; {schedules.SYNTAX} (constant:4 is 4)" if option.traced else ""
        meaning = option.help + course + _choices(option.choices)
        lines += _flag(setting, defaults[setting], meaning)
    return lines


def _named(flag: str) -> list[str]:
    """The families, objectives or optimizers that the command line names."""
    classes = configs.settings_classes()[flag]
    return [name for name in _values_on_command_line(flag, sys.argv[1:]) if name in classes]


def _values_on_command_line(flag: str, arguments: Sequence[str]) -> list[str]:
    """The values of a flag, from `--flag=a,b` or `--flag a,b`; other arguments are not checked."""
    values = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == flag and argument.startswith("-"):
            text = value if equals else following
            values += text.split(",")
    return [value.strip() for value in values]


def _family_line(name: str) -> str:
    family = MODELS[name]
    if family.objective is None:
        return f"{family.about}; trained by a loss of its own"
    own = f"objective {family.objective}, k {family.k} and eval_k {family.eval_k}"
    return f"{family.about}; if not given, {own}"


def _objective_line(name: str) -> str:
    entry = losses.CATALOGUE.get(name)
    settings = ", ".join(options_of(OBJECTIVE_OPTIONS[name]))
    about = _WITHOUT_DRAWS[name] if entry is None else entry.paper
    return f"{about} ({settings})" if settings else about


def _optimizer_line(name: str) -> str:
    return f"{ABOUT[name]} ({', '.join(options_of(OPTIMIZER_OPTIONS[name]))})"


def _choices(choices: Sequence[str] | None) -> str:
    return f" ({', '.join(choices)})" if choices else ""


def _flag(name: str, default: Any, meaning: str) -> list[str]:
    value = "" if default is None else f"={configs.flag_text(default)}"
    wrapped = textwrap.wrap(meaning, 80, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return [f"  --{name}{value}", *wrapped]
