"""What a log of OpenSC's pkcs11-spy says about C_DestroyObject.

The log has one paragraph for each call: ``12: C_UnwrapKey``, a time, lines ``[in] name = 0x…`` and ``[out] name = 0x…``, templates
with one indented line for each attribute, and ``Returned:  0 CKR_OK``.

Source: OpenSC's src/pkcs11/pkcs11-spy.c and pkcs11-display.c, by their output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Call", "Verdict", "judge", "parse"]

_HEAD = re.compile(r"^(\d+): (C_\w+)$", re.MULTILINE)
_HANDLE = re.compile(r"^\[(in|out)\] \W*(p?h\w+) = (0x[0-9a-fA-F]+)", re.MULTILINE)
_MATCH = re.compile(r"^Object (0x[0-9a-fA-F]+) matches", re.MULTILINE)
_TOKEN = re.compile(r"^ +CKA_TOKEN +(True|False)$", re.MULTILINE)
_RETURNED = re.compile(r"^Returned: +(\d+) ", re.MULTILINE)
_CREATING = frozenset(
    {"C_CreateObject", "C_CopyObject", "C_GenerateKey", "C_GenerateKeyPair", "C_UnwrapKey", "C_DeriveKey"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: number, C function, object handles that went in and came out, what was said of CKA_TOKEN, and the CK_RV."""

    number: int
    function: str
    given: tuple[int, ...]
    returned: tuple[int, ...]
    on_token: bool | None
    ckr: int


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found: how many calls and destroys, and each violation as a sentence."""

    calls: int = 0
    destroys: int = 0
    reuses: int = 0
    violations: list[str] = field(default_factory=list)


def parse(log: str) -> list[Call]:
    """Split a log into calls; one that is not complete is an error, since a judge must not overlook anything."""
    heads = list(_HEAD.finditer(log))
    ends = [head.start() for head in heads[1:]] + [len(log)]
    return [_call(int(head[1]), head[2], log[head.end() : end]) for head, end in zip(heads, ends, strict=True)]


def _call(number: int, function: str, text: str) -> Call:
    returned = _RETURNED.search(text)
    if returned is None:
        raise ValueError(f"call {number} ({function}) did not return: {text!r}")
    handles = [(way, int(value, 0)) for way, name, value in _HANDLE.findall(text) if "ession" not in name]
    out = [handle for way, handle in handles if way == "out"] + [int(value, 0) for value in _MATCH.findall(text)]
    tokens = _TOKEN.findall(text)
    call = Call(
        number=number,
        function=function,
        given=tuple(handle for way, handle in handles if way == "in"),
        returned=tuple(out),
        on_token="True" in tokens if tokens else None,
        ckr=int(returned[1]),
    )
    if function == "C_DestroyObject" and len(call.given) != 1:
        raise ValueError(f"call {number} destroys {len(call.given)} objects: {text!r}")
    if function in _CREATING and call.ckr == 0 and not call.returned:
        raise ValueError(f"call {number} ({function}) made nothing: {text!r}")
    return call


def judge(calls: list[Call]) -> Verdict:
    """Check that every destroy hits a session object that the log shows being made, once, and that its handle is dead then.

    A handle comes to life again only if a creating call or a search returns it.
    """
    verdict = Verdict(calls=len(calls))
    alive: dict[int, str] = {}
    dead: set[int] = set()
    for call in calls:
        for handle in call.given:
            if handle in dead:
                verdict.violations.append(f"call {call.number}: {call.function} on the dead handle {handle:#x}")
        if call.function == "C_DestroyObject":
            verdict.destroys += 1
            (handle,) = call.given
            was = alive.pop(handle, "not known")
            if was != "session":
                verdict.violations.append(f"call {call.number}: C_DestroyObject on {handle:#x}, which is {was}")
            dead.add(handle)
        elif call.function in _CREATING and call.ckr == 0:
            for handle in call.returned:
                verdict.reuses += handle in dead
                dead.discard(handle)
                alive[handle] = "token" if call.on_token else "session"
        elif call.function == "C_FindObjects":
            for handle in call.returned:
                dead.discard(handle)
                alive.setdefault(handle, "found, of unknown residency")
        elif call.function == "C_GetAttributeValue" and call.on_token is not None:
            for handle in call.given:
                alive[handle] = "token" if call.on_token else alive.get(handle, "found, a session object")
    return verdict
