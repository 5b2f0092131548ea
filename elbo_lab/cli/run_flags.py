"""Command-line flags and the entry point of all scripts.

There is one flag for each shared field of Config, and one for each setting of a model family, an
objective or an optimizer. A script defines these by `define()`, or flags of its own, and then calls
`run(main)`: wrong input ends it with one sentence and status 2, Ctrl-C with one word and status
130.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence

import jax
from absl import app, flags, logging

from elbo_lab import configs, data
from elbo_lab.cli import flag_values, folders, help_page, protocols, startup, terminal
from elbo_lab.cli.flag_values import OptionalParser
from elbo_lab.cli.run_sections import (
    PROTOCOL_DEFAULTS,
    PROTOCOL_SECTION,
    RUN_DEFAULTS,
    RUN_SECTION,
)
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.devices import distributed
from elbo_lab.devices.setup import Placement
from elbo_lab.errors import UserError
from elbo_lab.options import plain_type, types_of

LESS_MEMORY = "Smaller --batch_size, --k, --m, --replicates or layers need less."
_WHOLE_NUMBERS = ("num_processes", "process_id")
_OPTIONAL_PARSERS = {int: flags.IntegerParser, float: flags.FloatParser}

_SECTIONS = ({"A protocol": PROTOCOL_SECTION}, {"The run": RUN_SECTION})
_DEFAULTS = PROTOCOL_DEFAULTS | RUN_DEFAULTS


def define(
    among: flags.FlagValues = flags.FLAGS, texts: bool = False, without: Sequence[str] = ()
) -> None:
    """Defines a flag for every field and setting of a Config, and those of the other sections.

    A setting that several model families, objectives or optimizers share has one flag. The default
    of a setting's flag is None, for which each of them fills in its own default.

    Args:
      among: the flags to which these are added.
      texts: True if the flags of a Config take any text, which `config_of` parses later.
      without: flags of the other sections that are left out.
    """
    shared = types_of(Config)
    for name in configs.SHARED:
        default, text = getattr(Config, name), help_page.shared_text(name)
        _define(name, default, plain_type(shared[name]), text, among, texts)
    for name in configs.option_types():
        _define(name, None, flag_values.flag_type(name), help_page.option_text(name), among, texts)
    for name, default in _DEFAULTS.items():
        if name in without:
            continue
        kind = str if default is None else type(default)
        kind = int if name in _WHOLE_NUMBERS else kind
        _define(name, default, kind, {**PROTOCOL_SECTION, **RUN_SECTION}[name], among)


def setting_names() -> tuple[str, ...]:
    """The names of a configuration's flags: shared fields, then settings of all families,
    objectives and optimizers.
    """
    return (*configs.SHARED, *configs.option_types())


def define_run(*names: str) -> None:
    """Defines the named flags of RUN_SECTION, for a script without the flags of a Config."""
    for name in names:
        default = RUN_DEFAULTS[name]
        kind = bool if isinstance(default, bool) else str
        _define(name, default, kind, RUN_SECTION[name], flags.FLAGS)


def config_of(texts: dict[str, str]) -> Config:
    """The Config that a command line of these flags (flag -> text) describes.

    Raises:
      UserError: as `config_from_flags`, or a text is not a value of its flag.
    """
    values = flags.FlagValues()
    define(values)
    parse(values, ["", *(f"--{name}={text}" for name, text in texts.items())])
    return config_from_flags(values)


def config_from_flags(values: flags.FlagValues = flags.FLAGS) -> Config:
    """The Config that the command line describes.

    It is the protocol's, or the default one, with the values of the flags that are present, and its
    epochs multiplied by the budget.

    Raises:
      UserError: an unknown protocol, a budget out of range, sizes that are not numbers, or a
        setting that the model family, objective or optimizer does not have, set by a flag or by the
        protocol.
    """
    changes = {
        name: flag_values.value_of(name, values[name].value)
        for name in setting_names()
        if values[name].present
    }
    name = values.protocol
    base = Config() if name is None else protocol("protocol", name)
    base = protocols.with_optimizer(base, changes.get("optimizer") or base.optimizer)
    config = configs.replace(base, **changes)
    if name is not None:
        _check_protocol(name, base, config, changes)
    return within_budget(config, values.budget)


def _check_protocol(name: str, base: Config, config: Config, changes: dict[str, object]) -> None:
    """Raises a UserError if the protocol (`name`, `base`) sets something that the model family of
    the final `config` does not have. What flags change is exempt: they have been checked.
    """
    for setting in configs.non_defaults(base):
        if setting not in configs.all_values(config) and setting not in changes:
            field, choices = configs.owners(setting)
            raise UserError(
                f"--protocol={name} sets --{setting}, a setting of --{field}={', '.join(choices)}; "
                f"got --{field}={getattr(config, field)}."
            )


def protocol(flag: str, name: str) -> Config:
    """The configuration of the protocol `name`, the value of the flag `flag`.

    Raises:
      UserError: there is no such protocol.
    """
    if name not in protocols.PROTOCOLS:
        choices = ", ".join(protocols.PROTOCOLS)
        raise UserError(f"--{flag} must be one of {choices}; got {name!r}.")
    return protocols.PROTOCOLS[name]


def within_budget(config: Config, budget: float) -> Config:
    """The config with its epochs multiplied by the budget.

    Raises:
      UserError: the budget is not in (0, 1000].
    """
    check_budget(budget)
    return protocols.scaled(config, budget)


def check_budget(budget: float) -> None:
    """Raises a UserError if the budget is not in (0, 1000]."""
    if not 0 < budget <= 1000:
        raise UserError(f"--budget must be above 0 and at most 1000; got {budget}.")


def placement_from_flags() -> Placement:
    """The values of --shard_batch and --stream.

    Raises:
      UserError: one is neither true, false nor auto.
    """
    return Placement(_true_false_or_none("shard_batch"), _true_false_or_none("stream"))


def _true_false_or_none(name: str) -> bool | None:
    """The value of a flag that takes true, false or auto; None for auto."""
    choices = {"auto": None, "true": True, "false": False}
    text = getattr(flags.FLAGS, name)
    if text not in choices:
        raise UserError(f"--{name} must be one of auto, true, false; got {text!r}.")
    return choices[text]


def connect_from_flags() -> bool:
    """Connects to the other processes if --distributed is given.

    Returns:
      True if there are several processes.

    Raises:
      UserError: flags that do not go together, or no cluster is found.
    """
    values = flags.FLAGS
    address = (values.coordinator_address, values.num_processes, values.process_id)
    if values.distributed:
        distributed.connect(*address, values.initialization_timeout)
        terminal.guard()  # `connect` has replaced standard output
    elif any(value is not None for value in address):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id need --distributed."
        )
    return values.distributed


def run(main: Callable[..., int | None], description: str, words: int = 0) -> None:
    """Runs a script: parses its flags, then calls `main`.

    A user error ends it with one sentence and status 2. Ctrl-C, unless `main` handles it, ends it
    with one word and status 130.

    Args:
      main: takes the positional arguments of the command line; returns the exit status.
      description: the first paragraph of --help.
      words: the largest number of positional arguments.
    """
    startup.finish()
    terminal.guard()
    help_flags = ("--help", "-help", "-h", "--helpshort", "--helpfull")
    if any(argument in help_flags for argument in sys.argv[1:]):
        print(help_page.text(description, __name__, _SECTIONS, _DEFAULTS))
        sys.exit(terminal.status(0))

    def parse_or_refuse(argv: list[str]) -> list[str]:
        try:
            rest = parse(flags.FLAGS, argv)
        except UserError as error:
            _refuse(str(error))
        if len(rest) > 1 + words:
            _refuse(f"Flags are given as --name=value; got {rest[1 + words]!r}.")
        return rest

    def guarded(argv: list[str]) -> int | None:
        try:
            return terminal.status(main(*argv[1:]))
        except UserError as error:
            _refuse(with_protocol(str(error)))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                reason = str(error).splitlines()[0] if str(error) else "MemoryError"
                _refuse(f"There is not enough memory ({reason}). {LESS_MEMORY}")
            raise

    logging.set_verbosity(logging.WARNING)
    try:
        app.run(guarded, flags_parser=parse_or_refuse)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.stdout.flush()
        # Python's normal exit crashes while a compiled program still runs in another thread.
        os._exit(130)


def load_data(flag: str, name: str, in_file: bool = False) -> Dataset:
    """Loads a data set, from --data_dir and --manual_dir if these are given.

    Args:
      flag: the flag that names the data set.
      name: its value.
      in_file: see `data.load`.

    Raises:
      UserError: the data set cannot be loaded. The message names the flag.
    """
    values = flags.FLAGS
    folders.check(data_dir=values.data_dir, manual_dir=values.manual_dir)
    try:
        return data.load(name, values.data_dir, values.manual_dir, in_file, _derived)
    except UserError as error:
        if "--" in str(error):
            raise
        raise UserError(f"--{flag}={name}: {error}") from error


def _derived(name: str, data_dir: str | None, manual_dir: str | None) -> Dataset | None:
    """Loads the features or codes of a run; returns None if the name asks for neither."""
    from elbo_lab.runs import derived  # imported late: JAX is configured first

    try:
        return derived.load(name, data_dir, manual_dir)
    except UserError as error:
        raise UserError(f"--dataset={name}: {error}") from error


def parse(among: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Parses a command line; returns the arguments that are not flags.

    An empty text becomes None if None is the flag's default: it unsets what a protocol sets.

    Raises:
      UserError: a text is not a value of its flag.
    """
    try:
        rest = among(argv)
    except flags.Error as error:
        raise UserError(flag_values.message(error, among)) from error
    for name in among:
        if among[name].value == "" and among[name].default is None:
            among[name].value = None
    return rest


def with_protocol(sentence: str, among: flags.FlagValues = flags.FLAGS) -> str:
    """Adds to an error message which of the flags that it names the protocol sets, if any."""
    name = among["protocol"].value if "protocol" in among else None
    if name not in protocols.PROTOCOLS or f"--protocol={name}" in sentence:
        return sentence
    settings, defaults = configs.all_values(protocols.PROTOCOLS[name]), configs.all_values(Config())
    for field in dict.fromkeys(re.findall(r"--(\w+)", sentence)):
        value = settings.get(field)
        if value is None or value == defaults[field] or _is_set_by_flag(field, among):
            continue
        remedy = ""
        if field in among:
            may_be_none = field in configs.SHARED and among[field].default is None
            remedy = f"; --{field}= unsets it" if may_be_none else f"; --{field}=VALUE overrides it"
        return f"{sentence[:-1]} (--protocol={name} sets --{field}{remedy})."
    return sentence


def _is_set_by_flag(field: str, among: flags.FlagValues) -> bool:
    """Returns True if a field's value comes from a flag, not from the protocol."""
    if field not in among:
        return False
    # A flag that the script defines itself, such as table1's --k, always replaces the protocol's.
    is_scripts = among.find_module_defining_flag(field) != __name__
    return is_scripts or among[field].present


def _define(
    name: str, default, kind: type, text: str, among: flags.FlagValues, as_text: bool = False
) -> None:
    """Defines one flag; one whose default is None takes an empty text as None.

    Args:
      name, default, text: of the flag; `text` is its line of help.
      kind: the type of its value.
      among: the flags to which it is added.
      as_text: True if it takes any text.
    """
    if as_text:
        default = None if default is None else str(default)
        flags.DEFINE_string(name, default, text, flag_values=among)
    elif default is None and kind is bool:
        flag = flags.BooleanFlag(name, None, text)
        flag.parser = OptionalParser(flag.parser)
        flags.DEFINE_flag(flag, among)
    elif default is None and kind in _OPTIONAL_PARSERS:
        parser = OptionalParser(_OPTIONAL_PARSERS[kind]())
        flags.DEFINE(parser, name, None, text, flag_values=among)
    else:
        define_flag = {
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            bool: flags.DEFINE_bool,
            str: flags.DEFINE_string,
        }[kind]
        define_flag(name, default, text, flag_values=among)


def _refuse(sentence: str) -> None:
    print(f"Error: {sentence}", file=sys.stderr)
    sys.exit(2)
