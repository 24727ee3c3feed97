"""`token` and `doctor`, and how a module, a token and a PIN are found."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsmbridge.uri import Pkcs11Uri

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def uri(cli: Cli, **more: Any) -> str:  # noqa: ANN401 - fields of several types
    """Name the token by a URI."""
    return Pkcs11Uri(token=cli.variables["PKCS11_TOKEN_LABEL"], **more).to_uri(include_pin=True)


def pin_file(cli: Cli, pin: str | None = None, mode: int = 0o600) -> str:
    """Make a PIN file."""
    path = cli.directory / f"pin-{secrets.token_hex(4)}"
    path.write_text((pin or cli.variables["PKCS11_PIN"]) + "\n")
    path.chmod(mode)
    return str(path)


def test_token_ls_needs_no_pin(cli: Cli) -> None:
    """`token ls` shows the token and its module without logging in, as a table and as JSON."""
    anonymous = cli.without("PKCS11_PIN", "PKCS11_TOKEN_LABEL")
    label = cli.variables["PKCS11_TOKEN_LABEL"]
    assert label in anonymous("token", "ls").text
    found = anonymous.json("token", "ls")
    assert found["schema"] == "hsmbridge.token.ls/1"
    assert label in [token["label"] for token in found["tokens"]]
    assert found["module"]["path"] == os.path.realpath(cli.variables["PKCS11_MODULE"])


def test_token_show_lists_mechanisms(cli: Cli) -> None:
    """`token show` counts the mechanisms, and names them with -v."""
    assert "CKM_" not in cli("token", "show").text
    assert "CKM_RSA_PKCS" in cli("token", "show", "-v").text


def test_probe_leaves_nothing(cli: Cli) -> None:
    """`token show --probe` carries real keys through the token, says why where it cannot, and removes all of them."""
    before = cli.inventory()
    found = cli.json("token", "show", "--probe")
    assert cli.inventory() == before
    assert found["debris"] == []
    working = {entry["dialect"] for entry in found["dialects"] if entry["works"]}
    assert {trial["dialect"] for trial in found["matrix"]} == working
    assert all(trial["why"] for trial in found["matrix"] if not trial["unwraps"])
    for dialect in working:
        assert any(trial["unwraps"] for trial in found["matrix"] if trial["dialect"] == dialect)
    assert all(entry["why"] for entry in found["dialects"] if not entry["works"])


def test_probe_finds_changed_lengths(fresh: Cli) -> None:
    """The matrix shows what SoftHSM does to an HMAC-SHA1 key: 20 bytes go by RSA-OAEP only."""
    found = fresh.json("token", "show", "--probe")
    goes = {trial["dialect"]: trial["unwraps"] for trial in found["matrix"] if trial["key_type"] == "generic:20"}
    assert goes["rsa-oaep-sha1"] is True
    assert goes["aes-kwp"] is False
    assert "generic:20" in fresh("token", "show", "--probe").text


def test_doctor_on_a_good_token(fresh: Cli) -> None:
    """`doctor` ends with 0 and without a failure on a token that can be used."""
    found = fresh.json("doctor")
    assert found["usable"] is True
    assert {finding["check"] for finding in found["findings"]} == {"module", "token", "login", "mechanism", "key"}
    assert "fail" not in {finding["status"] for finding in found["findings"]}


def test_doctor_complains_of_a_kek_that_may_decrypt(fresh: Cli) -> None:
    """A KEK that pkcs11-tool made may decrypt too: `doctor` warns, with a hint, and still ends with 0."""
    (fresh.directory / "kek").write_bytes(secrets.token_bytes(32))
    fresh.tool(
        "--write-object",
        "kek",
        "--type",
        "secrkey",
        "--key-type",
        "AES:32",
        "--usage-wrap",
        "--label",
        "k",
        "--id",
        "01",
    )
    findings = [finding for finding in fresh.json("doctor")["findings"] if finding["check"] == "kek"]
    assert any("may also ENCRYPT, DECRYPT" in finding["message"] for finding in findings)
    assert any("whoever may log in can read" in finding["message"] for finding in findings)
    assert all(finding["status"] == "warn" and finding["hint"] for finding in findings)
    assert "warn  kek" in fresh("doctor").text


def test_missing_module(plain: Cli) -> None:
    """No module, a module that is not there, and a file that is none: 5, with a hint."""
    (plain.directory / "text.so").write_text("not a library")
    assert "--module" in plain("token", "ls", status=5).hint
    assert "no PKCS#11 module" in plain("token", "ls", "--module", "/nonexistent.so", status=5).err
    plain("token", "ls", "--module", "./text.so", status=5)
    found = plain.json("doctor", "--module", "/nonexistent.so", status=5)
    assert found["usable"] is False
    assert found["findings"][-1]["status"] == "fail"


def test_library_that_is_no_module(plain: Cli) -> None:
    """A shared library without C_GetFunctionList is refused with 5, not with a crash."""
    libraries = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line]
    plain("token", "ls", "--module", libraries[0], status=5)


def test_missing_token(cli: Cli) -> None:
    """A token that is not there: 5, and the hint names those that are."""
    done = cli("token", "show", "--token-label", "nobody", status=5)
    assert cli.variables["PKCS11_TOKEN_LABEL"] in done.hint


def test_uri_selects_module_token_and_pin(cli: Cli) -> None:
    """A URI with module-path, token and pin-source is all that is needed to log in."""
    bare = cli.without("PKCS11_MODULE", "PKCS11_TOKEN_LABEL", "PKCS11_PIN")
    named = uri(cli, module_path=cli.variables["PKCS11_MODULE"], pin_source=pin_file(cli))
    assert bare.json("key", "ls", "--uri", named)["token"] == cli.variables["PKCS11_TOKEN_LABEL"]


def test_two_answers_are_refused(cli: Cli) -> None:
    """An option and a URI that name different tokens or modules: 2, since the wrong token is the wrong key."""
    cli("key", "ls", "--token-label", "other", "--uri", uri(cli), status=2)
    cli("key", "ls", "--module", cli.variables["PKCS11_MODULE"], "--uri", uri(cli, module_path="/other.so"), status=2)


def test_uri_attributes_must_match(cli: Cli) -> None:
    """A URI that names another serial number or library does not fit the token, whatever else fits: 5."""
    cli("key", "ls", "--uri", uri(cli, serial="no such serial"), status=5)
    cli("key", "ls", "--uri", uri(cli, library_manufacturer="nobody"), status=5)


def test_pin_value_is_refused_unseen(cli: Cli) -> None:
    """A PIN inside a URI is refused with 2 and not repeated: arguments can be seen by every user."""
    done = cli("key", "ls", "--uri", uri(cli, pin_value="87654321"), status=2)
    assert "87654321" not in done.err
    assert "pin-source" in done.hint


def test_pin_file(cli: Cli) -> None:
    """--pin-file takes a private file or standard input; a file that others can read is refused with 4."""
    silent = cli.without("PKCS11_PIN")
    silent("key", "ls", "--pin-file", pin_file(cli))
    silent("key", "ls", "--pin-file", "-", stdin=cli.variables["PKCS11_PIN"].encode() + b"\n")
    assert "chmod 600" in silent("key", "ls", "--pin-file", pin_file(cli, mode=0o644), status=4).hint
    silent("key", "ls", "--pin-file", "/dev/null", status=2)


def test_no_pin(cli: Cli) -> None:
    """Without a PIN and without a terminal to ask: 5, and the hint names the ways to give one."""
    assert "--pin-file" in cli.without("PKCS11_PIN")("key", "ls", status=5).hint


def test_wrong_pin_is_tried_once(fresh: Cli) -> None:
    """A wrong PIN ends with 5 after one C_Login, as pkcs11-spy saw; it appears nowhere."""
    spy = next((path for path in SPIES if os.path.exists(path)), None)  # noqa: PTH110 - a string is what is needed
    if spy is None:
        pytest.skip("pkcs11-spy.so is not installed (Debian package opensc)")
    log = fresh.directory / "spy.log"
    spied = fresh.having(PKCS11SPY=fresh.variables["PKCS11_MODULE"], PKCS11SPY_OUTPUT=str(log), PKCS11_PIN="00000000")
    done = spied("key", "ls", "--module", spy, status=5)
    assert "CKR_PIN_INCORRECT" in done.err
    assert "00000000" not in done.err
    assert log.read_text(errors="replace").count(": C_Login") == 1
    fresh("key", "ls")


def test_pin_file_decides_alone(fresh: Cli) -> None:
    """A wrong PIN in --pin-file is not followed by the right one from the environment: that would be a second try."""
    fresh("key", "ls", "--pin-file", pin_file(fresh, "00000000"), status=5)


SPIES = [
    f"/usr/lib/{part}pkcs11-spy.so"
    for part in ("", "x86_64-linux-gnu/", "aarch64-linux-gnu/", "x86_64-linux-gnu/pkcs11/")
]


def test_verbose_says_where_the_pin_came_from(cli: Cli) -> None:
    """-v names module, token and the source of the PIN on standard error, and not the PIN."""
    told = cli("-v", "key", "ls").err
    assert "hsmbridge: info: PIN from PKCS11_PIN" in told
    assert cli.variables["PKCS11_PIN"] not in told
