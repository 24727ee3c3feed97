"""The checks of `doctor`, in the order in which a set-up is put together: module, token, login, mechanisms, keys."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKF, CKO
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import HsmbridgeError
from hsmbridge.generation import enforces_unwrap_template
from hsmbridge.probe import Route
from hsmbridge_cli.kekfacts import READABLE, examine_kek
from hsmbridge_cli.keyfacts import key_summary, may_wrap
from hsmbridge_cli.opening import log_in, open_module, pick_token, uris_of
from hsmbridge_cli.progress import watched
from hsmbridge_cli.trials import find_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.objects import Object
    from hsmbridge.token import Token
    from hsmbridge_cli.options import Settings

__all__ = ["Finding", "Status", "examine"]

Status = Literal["ok", "warn", "fail"]

_LEAST_STRENGTH = 112
"""NIST SP 800-131A: less is no longer allowed for anything."""

_KEY_QUERY = AttributeQuery((CKA.CLASS, CKA.TOKEN, CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.PRIVATE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: module, token, login, mechanism, kek or key.
        status: "fail" where the set-up cannot be used so.
        message: what was found.
        hint: what to do, empty where nothing is to be done.
    """

    check: str
    status: Status
    message: str
    hint: str = ""

    def document(self) -> dict[str, str]:
        """Return it JSON-ready."""
        return {"check": self.check, "status": self.status, "message": self.message, "hint": self.hint}


class _Stop(Exception):  # noqa: N818 - not an error: the rest cannot be looked at
    """What follows cannot be looked at."""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything, as far as one gets.

    Raises:
        UsageError: the options contradict each other.
    """
    findings: list[Finding] = []
    uris = uris_of(settings)
    try:
        with _step(findings, "module"):
            module = open_module(settings, uris)
        version = ".".join(str(part) for part in module.library_version)
        findings.append(Finding(check="module", status="ok", message=f"{module.path}: {module.description} {version}"))
        findings.append(
            Finding(check="module", status="ok", message="initialised with operating-system locking: threads are safe")
        )
        with _step(findings, "token"):
            token = pick_token(settings, uris, module)
        findings += _token_findings(token)
        with _step(findings, "login"):
            log_in(settings, uris, token)
        findings.append(_login_finding(token))
    except _Stop:
        return findings
    try:
        findings += _mechanism_findings(token)
        findings += _key_findings(token)
    finally:
        token.close()
    return findings


@contextmanager
def _step(findings: list[Finding], check: str) -> Iterator[None]:
    """Turn an error into a finding, after which there is no going on."""
    from hsmbridge.errors import UsageError

    try:
        yield
    except UsageError:
        raise
    except HsmbridgeError as error:
        findings.append(Finding(check=check, status="fail", message=str(error), hint=error.hint or ""))
        raise _Stop from None


def _token_findings(token: Token) -> Iterator[Finding]:
    yield Finding(
        check="token",
        status="ok",
        message=f"{token.label!r} in slot {token.slot_id}, {token.manufacturer} {token.model}".rstrip(),
    )
    if token.flags & CKF.TOKEN_WRITE_PROTECTED:
        yield Finding(check="token", status="warn", message="it is write protected", hint="keys cannot be kept in it")
    if token.flags & CKF.TOKEN_USER_PIN_COUNT_LOW:
        yield Finding(
            check="token",
            status="warn",
            message="a wrong PIN was given since the last login",
            hint="few tries are left; the next right PIN resets the counter",
        )


def _login_finding(token: Token) -> Finding:
    if token.logged_in:
        return Finding(check="login", status="ok", message="the PIN is right")
    return Finding(
        check="login",
        status="warn",
        message="the token asks for no PIN",
        hint="whoever runs a program here can use its keys",
    )


def _mechanism_findings(token: Token) -> Iterator[Finding]:
    found = find_out(token)
    working = {dialect: route for dialect, route in found.items() if isinstance(route, Route)}
    for dialect, route in found.items():
        if isinstance(route, str):
            continue
        if not route.keeps_length and dialect is not Dialect.AES_KW:
            yield Finding(
                check="mechanism",
                status="warn",
                message=f"{route} works, but changes lengths that are no multiple of 8",
                hint="such keys are refused; RSA-OAEP keeps lengths",
            )
        else:
            yield Finding(check="mechanism", status="ok", message=f"{route} works")
    if not working:
        yield Finding(
            check="mechanism",
            status="warn",
            message="the token wraps nothing: its keys cannot leave it by value",
            hint="hand them over by reference",
        )
        return
    lacking = [str(dialect) for dialect in found if dialect not in working]
    if lacking:
        yield Finding(
            check="mechanism",
            status="ok",
            message=f"has no {', '.join(lacking)}: `hsmbridge token show --probe` says why",
        )
    if Dialect.AES_KWP not in working and Dialect.AES_KW not in working:
        yield Finding(
            check="mechanism",
            status="warn",
            message="neither RFC 3394 nor RFC 5649 works: an AES key cannot serve as a KEK here",
            hint="use an RSA key pair as KEK: `hsmbridge key generate --kek --type rsa:3072`",
        )
    if key_entry(token).creates is False:
        yield Finding(check="mechanism", status="ok", message="takes known keys only wrapped, as FIPS 140 demands")
    if enforces_unwrap_template(token):
        yield Finding(check="mechanism", status="ok", message="enforces CKA_UNWRAP_TEMPLATE")
    else:
        yield Finding(
            check="mechanism",
            status="warn",
            message=f"does not enforce CKA_UNWRAP_TEMPLATE: {READABLE.replace('this KEK', 'a KEK')}",
            hint="let only programs that you trust log in",
        )


def _key_findings(token: Token) -> Iterator[Finding]:
    # Session keys are not looked at: what is there of them, the checks before made themselves.
    shown = token.keys()
    keys = [key for key in shown if key.read(_KEY_QUERY).flag(CKA.TOKEN) is not False]
    clean = True
    for key in watched(keys, "looking at keys"):
        for finding in _look_at(key):
            clean = False
            yield finding
    if clean:
        yield Finding(check="key", status="ok", message=f"{len(keys)} keys, nothing to complain of")


def _look_at(key: Object) -> Iterator[Finding]:
    name = str(key.identity)
    try:
        summary = key_summary(key)
        if may_wrap(summary):
            facts = examine_kek(key)
            for complaint in facts.complaints:
                yield Finding(
                    check="kek",
                    status="warn",
                    message=complaint,
                    hint="make a safe one with `hsmbridge key generate --kek`",
                )
            if facts.readable:
                yield Finding(
                    check="kek", status="warn", message=f"{name}: {READABLE}", hint="see `hsmbridge key show`"
                )
        strength = summary["strength"]
        if isinstance(strength, int) and strength < _LEAST_STRENGTH:
            yield Finding(
                check="key", status="warn", message=f"{name} has {strength} bits of strength", hint="replace it"
            )
        found = key.read(_KEY_QUERY)
        if found.number(CKA.CLASS) != CKO.PUBLIC_KEY and found.flag(CKA.SENSITIVE) is False:
            yield Finding(
                check="key", status="warn", message=f"{name} is not sensitive: whoever may log in can read it",
                hint="generate it anew, with CKA_SENSITIVE=true",
            )  # fmt: skip
    except HsmbridgeError as error:
        yield Finding(
            check="key", status="warn", message=f"{name} could not be looked at: {error}", hint=error.hint or ""
        )
