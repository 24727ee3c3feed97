"""Errors as the user sees them: one line, a hint, an exit code, and no secret."""

from __future__ import annotations

import click
import pytest
from hsmbridge_cli.failures import exit_code, report

from hsmbridge import errors

SECRET = "0123456789abcdef"

CODES = {
    "Pkcs11Error": 1, "ReadBackError": 1, "StaleObjectError": 1, "HsmbridgeError": 1,
    "UsageError": 2, "UriError": 2, "NotFoundError": 2,
    "InputError": 3, "UnwrapError": 3,
    "PolicyError": 4, "ExistsError": 4, "HardwareKeyError": 4, "KekError": 4, "NotExtractableError": 4,
    "MechanismError": 4, "LengthChangeError": 4,
    "UnavailableError": 5, "ModuleError": 5, "ForkError": 5, "TokenError": 5, "LoginError": 5,
}  # fmt: skip


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_its_exit_code(name: str) -> None:
    """Each error class of the token layer ends the command with the code of its family."""
    kind = getattr(errors, name)
    error = kind("C_WrapKey", 5) if name == "Pkcs11Error" else kind("message")
    assert exit_code(error) == CODES[name]


def test_error_note_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """An error, its notes and its hint are one line each on standard error, control characters escaped."""
    error = errors.KekError("no\nsuch \x1b[2Jluck", hint="try again")
    error.add_note("an object may be left")
    assert report(error, 0) == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "hsmbridge: error: no\\nsuch \\x1b[2Jluck",
        "hsmbridge: note: an object may be left",
        "hsmbridge: hint: try again",
    ]


@pytest.mark.parametrize("verbosity", [0, 2])
def test_an_internal_error_shows_no_values(capsys: pytest.CaptureFixture[str], verbosity: int) -> None:
    """An unexpected error is named by its kind and its place, with -vv also by the way there, never by its text."""
    with pytest.raises(ValueError, match=SECRET) as caught:
        raise ValueError(f"cannot use {SECRET}")
    assert report(caught.value, verbosity) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("hsmbridge: error: internal error: ValueError in test_failures.py, line ")
    assert SECRET not in shown
    assert ("test_an_internal_error_shows_no_values" in shown) == (verbosity == 2)


def test_operating_system_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """What the operating system refuses is told in its own words, without a traceback."""
    assert report(FileNotFoundError(2, "No such file or directory", "x"), 0) == 1
    assert capsys.readouterr().err == "hsmbridge: error: x: no such file or directory\n"


def test_usage_errors_point_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Click's messages take our form: lower case, no full stop, and the command whose help explains it."""
    error = click.UsageError("No such option.", click.Context(click.Command("wrap"), info_name="hsmbridge wrap"))
    assert report(error, 0) == 2
    assert capsys.readouterr().err.splitlines() == [
        "hsmbridge: error: no such option",
        "hsmbridge: hint: see `hsmbridge wrap --help`",
    ]
