"""Command-line flags: one for each shared field of Config and for each setting of a model family
or an objective, and how a script meets its user.

Scripts call `run(main)`, after `define()` or with flags of their own: wrong input ends with one
sentence and status 2, Ctrl-C with a word and status 130.
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
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.devices import distributed
from elbo_lab.devices.setup import Placement
from elbo_lab.errors import UserError
from elbo_lab.options import plain_type, types_of

RUN_SECTION = {
    "workdir": "the run's directory (if not given, runs/ and a name made of the configuration)",
    "overwrite": "remove what an earlier run left in the directory, and start anew",
    "compilation_cache_dir": "where compiled programs are kept, so that the next start is fast; "
    "empty for none",
    "tensorboard": "write TensorBoard events too",
    "platform": "the device to run on, e.g. cpu or cuda (the best there is if not given)",
    "data_dir": "where prepared data sets are kept (tensorflow-datasets' own place if not given)",
    "manual_dir": "a folder with the data set's official files, instead of a download",
    "shard_batch": "share each batch among devices that --replicates leaves: true, false, or auto, "
    "which does on GPUs, TPUs and several processes, not on one CPU",
    "stream": "stream the training images to the device while it trains: true (from an "
    "uncompressed .npz they are not even loaded), false, or auto, which does from the host's "
    "memory where they would take a quarter of a GPU's or TPU's",
    "distributed": "one of several processes that train together, as jax.distributed does; started "
    "with the same command each, by SLURM, Open MPI or on a TPU pod, or with the next three flags",
    "coordinator_address": "HOST:PORT, where process 0 listens",
    "num_processes": "how many processes there are",
    "process_id": "which one of them this is, from 0 on; process 0 writes and speaks",
    "initialization_timeout": "seconds to wait for the other processes",
}
RUN_DEFAULTS = {
    "workdir": None,
    "overwrite": False,
    "compilation_cache_dir": os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "elbo_lab", "xla"
    ),
    "tensorboard": True,
    "platform": None,
    "data_dir": None,
    "manual_dir": None,
    "shard_batch": "auto",
    "stream": "auto",
    "distributed": False,
    "coordinator_address": None,
    "num_processes": None,
    "process_id": None,
    "initialization_timeout": 60,
}
# Those of one process among several; scripts that start processes themselves leave them out.
DISTRIBUTED = (
    *("distributed", "coordinator_address", "num_processes", "process_id"),
    "initialization_timeout",
)
LESS_MEMORY = "Smaller --batch_size, --k, --m, --replicates or layers need less."
_WHOLE_NUMBERS = ("num_processes", "process_id")
_OPTIONAL_PARSERS = {int: flags.IntegerParser, float: flags.FloatParser}

PROTOCOL_SECTION = {
    "protocol": "a protocol, whose settings replace the defaults below; flags that are "
    f"given go before it ({', '.join(protocols.PROTOCOLS)})",
    "budget": "train for this share of the epochs; the learning rate's course keeps its shape",
    "print_config": "print the configuration as JSON, and end",
}
PROTOCOL_DEFAULTS = {"protocol": None, "budget": 1.0, "print_config": False}


_SECTIONS = ({"A protocol": PROTOCOL_SECTION}, {"The run": RUN_SECTION})
_DEFAULTS = PROTOCOL_DEFAULTS | RUN_DEFAULTS


def define(
    among: flags.FlagValues = flags.FLAGS, texts: bool = False, without: Sequence[str] = ()
) -> None:
    """Defines a flag for every field and setting of a Config, and those of the other sections.

    A setting of a model family or an objective has one flag, however many have a setting of that
    name, and None for its default: each fills in its own.

    Args:
      among: the flags that they join.
      texts: whether a Config's are taken as texts, for `config_of` to read later.
      without: flags of the other sections that are left out.
    """
    shared = types_of(Config)
    for name in configs.SHARED:
        default, text = getattr(Config, name), help_page.shared_text(name)
        _define(name, default, plain_type(shared[name]), text, among, texts)
    for name in configs.option_types():
        _define(name, None, flag_values.flag_type(name), help_page.option_text(name), among, texts)
    for name, default in {**PROTOCOL_DEFAULTS, **RUN_DEFAULTS}.items():
        if name in without:
            continue
        kind = str if default is None else type(default)
        kind = int if name in _WHOLE_NUMBERS else kind
        _define(name, default, kind, {**PROTOCOL_SECTION, **RUN_SECTION}[name], among)


def setting_names() -> tuple[str, ...]:
    """The names of a configuration's flags: shared fields, and settings of any family or
    objective.
    """
    return (*configs.SHARED, *configs.option_types())


def define_run(*names: str) -> None:
    """Defines some of RUN_SECTION's flags, for a script with a configuration of its own."""
    for name in names:
        default = RUN_DEFAULTS[name]
        kind = bool if isinstance(default, bool) else str
        _define(name, default, kind, RUN_SECTION[name], flags.FLAGS)


def config_of(texts: dict[str, str]) -> Config:
    """The Config of flags given as texts, as a command line of them describes it.

    Raises:
      UserError: as of `config_from_flags`, or a text that is no value of its flag.
    """
    given = flags.FlagValues()
    define(given)
    parse(given, ["", *(f"--{name}={text}" for name, text in texts.items())])
    return config_from_flags(given)


def config_from_flags(given_flags: flags.FlagValues = flags.FLAGS) -> Config:
    """The Config that the command line describes: the protocol's if there is one, with the flags
    that were given, for the budget's share of its epochs.

    Raises:
      UserError: an unknown protocol, a budget that is none, sizes that are not numbers, a setting
        of another model family or objective than the configuration's, or a protocol that sets one.
    """
    given = {
        name: flag_values.value_of(name, given_flags[name].value)
        for name in setting_names()
        if given_flags[name].present
    }
    name = given_flags.protocol
    base = Config() if name is None else protocol("protocol", name)
    changed = configs.replace(base, **given)
    if name is not None:
        _check_protocol(name, base, changed, given)
    return within_budget(changed, given_flags.budget)


def _check_protocol(name: str, base: Config, changed: Config, given: dict[str, object]) -> None:
    """Raises a UserError for a model family that lacks a setting of the protocol's."""
    for setting in configs.given(base):
        if setting not in configs.flat(changed) and setting not in given:
            raise UserError(
                f"--protocol={name} sets --{setting}, a setting of "
                f"--model={', '.join(configs.families_with(setting))}; got --model={changed.model}."
            )


def protocol(flag: str, name: str) -> Config:
    """The protocol that a flag names.

    Raises:
      UserError: there is no such protocol.
    """
    if name not in protocols.PROTOCOLS:
        choices = ", ".join(protocols.PROTOCOLS)
        raise UserError(f"--{flag} must be one of {choices}; got {name!r}.")
    return protocols.PROTOCOLS[name]


def within_budget(config: Config, budget: float) -> Config:
    """The config for --budget's share of its epochs.

    Raises:
      UserError: a budget that is none.
    """
    if not 0 < budget <= 1000:
        raise UserError(f"--budget must be above 0 and at most 1000; got {budget}.")
    return protocols.scaled(config, budget)


def placement_from_flags() -> Placement:
    """--shard_batch and --stream.

    Raises:
      UserError: neither true, false nor auto.
    """
    choices = {"auto": None, "true": True, "false": False}
    names = ("shard_batch", "stream")
    for name in names:
        value = getattr(flags.FLAGS, name)
        if value not in choices:
            raise UserError(f"--{name} must be one of auto, true, false; got {value!r}.")
    return Placement(*(choices[getattr(flags.FLAGS, name)] for name in names))


def connect_from_flags() -> bool:
    """Joins the other processes, if there are to be any; says so.

    Raises:
      UserError: flags that do not fit together, or no cluster to be found.
    """
    values = flags.FLAGS
    where = (values.coordinator_address, values.num_processes, values.process_id)
    if values.distributed:
        distributed.connect(*where, values.initialization_timeout)
        terminal.guard()  # it has replaced standard output
    elif any(value is not None for value in where):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id need --distributed."
        )
    return values.distributed


def run(main: Callable[..., int | None], description: str, words: int = 0) -> None:
    """Runs a script: flags, then `main`.

    User errors become one sentence and status 2, and Ctrl-C, as long as `main` does not handle it,
    becomes a word and status 130.

    Args:
      main: takes the words of the command line that are no flags; returns the exit status.
      description: what --help says first.
      words: how many such words there may be.
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
        # Python's own end crashes while a compiled program still computes in its thread.
        os._exit(130)


def load_data(flag: str, name: str, in_file: bool = False) -> Dataset:
    """A data set, as --data_dir and --manual_dir say.

    Raises:
      UserError: it cannot be had; the sentence names the flag.
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
    """The features or codes of a run that a name asks for; None of another name."""
    from elbo_lab.runs import derived  # not sooner: JAX's settings are made before

    try:
        return derived.load(name, data_dir, manual_dir)
    except UserError as error:
        raise UserError(f"--dataset={name}: {error}") from error


def parse(among: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Reads a command line; returns what of it is no flag. An empty text is None where None is the
    flag's default, so that what a protocol sets can be left out again.

    Raises:
      UserError: a text that is no value of its flag.
    """
    try:
        rest = among(argv)
    except flags.Error as error:
        raise UserError(_explained(error, among)) from error
    for name in among:
        if among[name].value == "" and among[name].default is None:
            among[name].value = None
    return rest


def with_protocol(sentence: str, among: flags.FlagValues = flags.FLAGS) -> str:
    """The sentence; where it names a setting of the protocol's and not of a flag, it says so."""
    name = among["protocol"].value if "protocol" in among else None
    if name not in protocols.PROTOCOLS or f"--protocol={name}" in sentence:
        return sentence
    settings, defaults = configs.flat(protocols.PROTOCOLS[name]), configs.flat(Config())
    for field in dict.fromkeys(re.findall(r"--(\w+)", sentence)):
        value = settings.get(field)
        # A flag of the script's own, as table1's --k, takes nothing from the protocol.
        own = field in among and among.find_module_defining_flag(field) != __name__
        given = own or field in among and among[field].present
        if value is None or given or value == defaults[field]:
            continue
        remedy = ""
        if field in among:
            optional = field in configs.SHARED and among[field].default is None
            remedy = "= leaves it out" if optional else " of your own replaces it"
            remedy = f"; {'' if optional else 'a '}--{field}{remedy}"
        return f"{sentence[:-1]} (--protocol={name} sets --{field}{remedy})."
    return sentence


def _define(
    name: str, default, kind: type, text: str, among: flags.FlagValues, as_text: bool = False
) -> None:
    define_flag = {
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_bool,
        str: flags.DEFINE_string,
    }[kind]
    if as_text:
        define_flag, default = flags.DEFINE_string, None if default is None else str(default)
    if kind in _OPTIONAL_PARSERS and default is None and not as_text:
        parser = OptionalParser(_OPTIONAL_PARSERS[kind]())
        flags.DEFINE(parser, name, None, text, flag_values=among)
    elif kind is bool and default is None and not as_text:
        flag = flags.BooleanFlag(name, None, text)
        flag.parser = OptionalParser(flag.parser)
        flags.DEFINE_flag(flag, among)
    else:
        define_flag(name, default, text, flag_values=among)


def _explained(error: flags.Error, among: flags.FlagValues) -> str:
    """The error in words of a person at a shell; absl's own are Python's for a wrong type."""
    wrong = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if not wrong or wrong[1] not in among:
        return f"{str(error).rstrip('.')}."
    if ranged := re.search(r" is not (.*(?:integer|number|range).*)$", str(error)):
        kind = re.sub("^integer", "an integer", ranged[1])
        return f"--{wrong[1]} must be {kind}; got {wrong[2]!r}."
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    kind = kinds.get(among[wrong[1]].flag_type(), "text")
    return f"--{wrong[1]} must be {kind}; got {wrong[2]!r}."


def _refuse(sentence: str) -> None:
    print(f"Error: {sentence}", file=sys.stderr)
    sys.exit(2)
