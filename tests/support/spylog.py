"""What a log of OpenSC's pkcs11-spy says about C_DestroyObject.

The log has one paragraph for each call: ``12: C_UnwrapKey``, a time, lines ``[in] name = 0x…`` and
``[out] name = 0x…``, templates with one indented line for each attribute, and ``Returned:  0 CKR_OK``.

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
_READABLE = re.compile(r"^ +CKA_SENSITIVE +False$", re.MULTILINE)
_RETURNED = re.compile(r"^Returned: +(\d+) ", re.MULTILINE)
_CREATING = frozenset(
    {"C_CreateObject", "C_CopyObject", "C_GenerateKey", "C_GenerateKeyPair", "C_UnwrapKey", "C_DeriveKey"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call.

    Attributes:
        number: as the log counts; function: the C function; ckr: the CK_RV.
        given: object handles that went in; returned: those that came out.
        on_token: whether CKA_TOKEN=true was said, None if nothing was.
        readable: whether CKA_SENSITIVE=false was said.
    """

    number: int
    function: str
    given: tuple[int, ...]
    returned: tuple[int, ...]
    on_token: bool | None
    readable: bool
    ckr: int

    @property
    def makes(self) -> bool:
        """Whether the call made an object."""
        return self.function in _CREATING and self.ckr == 0


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found: how many calls and destroys, how many handles came again, and each violation as a sentence."""

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
        readable=_READABLE.search(text) is not None,
        ckr=int(returned[1]),
    )
    if function == "C_DestroyObject" and len(call.given) != 1:
        raise ValueError(f"call {number} destroys {len(call.given)} objects: {text!r}")
    if call.makes and not call.returned:
        raise ValueError(f"call {number} ({function}) made nothing: {text!r}")
    return call


def judge(calls: list[Call]) -> Verdict:
    """Check that every destroy hits a session object that the log shows being made, and once only.

    Its handle is dead then, and comes to life again only if a creating call or a search returns it.
    """
    ledger = _Ledger()
    for call in calls:
        ledger.enter(call)
    return ledger.verdict


class _Ledger:
    """What each handle stands for at one point of the log."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self._alive: dict[int, str] = {}
        self._dead: set[int] = set()

    def enter(self, call: Call) -> None:
        self.verdict.calls += 1
        for handle in self._dead.intersection(call.given):
            self._complain(call, f"{call.function} on the dead handle {handle:#x}")
        if call.function == "C_DestroyObject":
            self._destroy(call)
        elif call.makes:
            self._make(call)
        elif call.function == "C_FindObjects":
            self._dead.difference_update(call.returned)
            for handle in call.returned:
                self._alive.setdefault(handle, "found, of unknown residency")
        elif call.function == "C_GetAttributeValue" and call.on_token is not None:
            for handle in call.given:
                made_here = self._alive.get(handle) == "session"
                self._alive[handle] = (
                    "token" if call.on_token else "session" if made_here else "found, a session object"
                )

    def _destroy(self, call: Call) -> None:
        self.verdict.destroys += 1
        (handle,) = call.given
        was = self._alive.pop(handle, "not known")
        if was != "session":
            self._complain(call, f"C_DestroyObject on {handle:#x}, which is {was}")
        self._dead.add(handle)

    def _make(self, call: Call) -> None:
        for handle in call.returned:
            self.verdict.reuses += handle in self._dead
            self._dead.discard(handle)
            self._alive[handle] = "token" if call.on_token else "session"

    def _complain(self, call: Call, what: str) -> None:
        self.verdict.violations.append(f"call {call.number}: {what}")
