"""Parsing of flags: empty texts, invalid texts, and the settings of a protocol."""

import pytest
from absl import flags

from elbo_lab import configs
from elbo_lab.cli import folders, run_flags, run_sections, validation
from elbo_lab.configs import Config
from elbo_lab.errors import UserError

# Every setting -> the default of its flag.
FIELDS = dict.fromkeys(run_flags.setting_names()) | {n: getattr(Config, n) for n in configs.SHARED}


def parsed(*argv: str) -> flags.FlagValues:
    values = flags.FlagValues()
    run_flags.define(values)
    run_flags.parse(values, ["", *argv])
    return values


@pytest.mark.parametrize("name", FIELDS)
def test_an_empty_text_is_none_or_refused_if_a_value_is_needed(name):
    if FIELDS[name] is None:
        assert run_flags.config_of({name: ""}) == Config()
        return
    with pytest.raises(UserError) as caught:
        validation.check(run_flags.config_of({name: ""}))
    message = str(caught.value)
    assert message.startswith(f"--{name} must be ") and message.endswith("got ''.")
    assert all(choice in message for choice in validation.CHOICES.get(name, ()))


def test_an_empty_text_leaves_out_what_a_protocol_sets():
    assert run_flags.config_of({"protocol": "fast"}).estimator == "stl"
    assert run_flags.config_of({"protocol": "fast", "estimator": ""}).estimator is None
    code = {"protocol": "burda2015_code"}
    assert run_flags.config_of(code).au_images == 500
    assert run_flags.config_of(code | {"au_images": ""}).au_images is None


@pytest.mark.parametrize(
    "name", [name for name, value in run_sections.RUN_DEFAULTS.items() if value is None]
)
def test_flags_whose_default_is_none_may_be_empty(name):
    assert parsed(f"--{name}=")[name].value is None


def refusal(*argv: str) -> str:
    """The message about an invalid configuration."""
    values = parsed(*argv)
    with pytest.raises(UserError) as caught:
        validation.check(run_flags.config_from_flags(values))
    return run_flags.with_protocol(str(caught.value), values)


@pytest.mark.parametrize(
    ("argv", "end"),
    [
        # The protocol does not set these flags.
        (["--likelihood=gaussian"], "needs --binarization=none; got dynamic."),
        (["--objective=miwae"], "(with one repeat it is iwae); got 1."),
        (
            ["--objective=rws"],
            "a gradient of its own (--protocol=fast sets --estimator; --estimator= unsets it).",
        ),
        (["--objective=rws", "--estimator=dreg"], "which has a gradient of its own."),
        (
            ["--protocol=rainforth2018", "--eval_k=9"],
            "got 9 (--protocol=rainforth2018 sets --k; --k= unsets it).",
        ),
    ],
    ids=str,
)
def test_a_message_names_the_setting_of_the_protocol_and_how_to_change_it(argv, end):
    assert refusal("--protocol=fast", *argv).endswith(end)


def test_sizes_are_whole_numbers():
    for text in ("4.0", "4,x", "4,,2", " "):
        with pytest.raises(UserError, match="--latent_dims must be whole numbers of at least 1"):
            run_flags.config_of({"latent_dims": text})


def test_folders_that_are_files(tmp_path):
    (tmp_path / "file").write_text("x")
    file = str(tmp_path / "file")
    folders.check(data_dir=None, manual_dir=str(tmp_path), other=str(tmp_path / "new"))
    with pytest.raises(UserError, match="--manual_dir=.*file is a file; give a folder."):
        folders.check(data_dir=None, manual_dir=file)
    with pytest.raises(UserError, match="--results_dir=.* cannot be written"):
        folders.create("results_dir", f"{file}/new")
    assert folders.create("results_dir", str(tmp_path / "new")).is_dir()
