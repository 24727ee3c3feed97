"""A worker: one process that runs the checks of one chapter, or takes the token's inventory.

It is told what to do on standard input, since the PIN is part of that, and answers with JSON lines on a pipe of its
own. It may end at any moment: the module runs in here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.hardening import disable_core_dumps

from hsmbridge.codes import CKF, CKM, name_of
from hsmbridge.errors import HsmbridgeError, LoginError, UnavailableError
from hsmbridge.module import Module
from hsmbridge.observing import observe
from hsmbridge_conformance.catalogue import chapter_checks
from hsmbridge_conformance.cleaning import remove_left_behind
from hsmbridge_conformance.faults import Deed, Fault, FaultPlan
from hsmbridge_conformance.inventory import take_inventory
from hsmbridge_conformance.journal import CallJournal, GivenUp
from hsmbridge_conformance.rig import Rig
from hsmbridge_conformance.target import Target
from hsmbridge_conformance.verdict import Failed, Finding, Result, Subject, Unsupported, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.token import Token
    from hsmbridge_conformance.catalogue import Check

__all__ = ["main"]

_LIMIT = 400
"""Characters of an error's text that go into a report."""


class Worker:
    """Does one order.

    Args:
        order: what the parent wants, see :mod:`hsmbridge_conformance.process`.
        say: sends one message back.
    """

    def __init__(self, order: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
        self._order = order
        self._say = say
        self._journal = CallJournal(Path(order["position"]), order.get("given_up", ()))
        self._target = Target.from_message(order["target"])
        observe(self._journal)
        self._journal.begin("")

    def run(self) -> None:
        """Open the token and do it.

        Raises:
            UnavailableError: module, token or login is not available.
        """
        token = self._target.open()
        if "fault" in self._order:  # a check wants a worker that does not come back
            self._journal.faults = FaultPlan(
                Fault(at=self._order["fault"]["at"], deed=Deed(self._order["fault"]["deed"]))
            )
        try:
            {"describe": self._describe, "clean": self._clean, "check": self._check}[self._order["task"]](token)
        finally:
            token.module.calls.finalize()  # a TPM keeps what was loaded into it

    def _describe(self, token: Token) -> None:
        module = token.module
        major, minor = module.library_version
        self._say(
            {
                "module": {
                    "path": module.path,
                    "description": module.description,
                    "manufacturer": module.manufacturer,
                    "version": f"{major}.{minor}",
                },
                "token": {
                    "label": token.label,
                    "serial": token.serial.decode("utf-8", "replace"),
                    "model": token.model,
                    "manufacturer": token.manufacturer,
                    "firmware": ".".join(str(part) for part in token.firmware_version),
                    "mechanisms": sorted(name_of(CKM, number) for number in token.mechanisms()),
                },
                "inventory": take_inventory(token, bytes.fromhex(self._order["digest_key"])),
            }
        )

    def _clean(self, token: Token) -> None:
        removed, kept = remove_left_behind(token, [bytes.fromhex(prefix) for prefix in self._order["prefixes"]])
        serial = token.serial.decode("utf-8", "replace")
        self._say({"removed": removed, "kept": kept, "serial": serial, "label": token.label})

    def _check(self, token: Token) -> None:
        order = self._order
        rig = Rig(token, self._target, self._journal, bytes.fromhex(order["prefix"]), Path(order["directory"]))
        rig.deadly.update(order["deadly"])
        done = {(check_id, parameter) for check_id, parameter in order["done"]}
        try:
            for entry in chapter_checks(order["chapter"]):
                if entry.id in order["checks"]:
                    self._one(rig, entry, done)
        finally:
            with suppress(GivenUp):  # what is left then is the run's to clean
                rig.close()

    def _one(self, rig: Rig, entry: Check, done: set[tuple[str, str]]) -> None:
        if (entry.id, "*") in done:
            return
        self._journal.begin(f"{entry.id} *")
        try:
            cases: list[Any] = list(entry.cases(rig)) if entry.cases is not None else [None]
            verdict, reason = Verdict.UNSUPPORTED, "the module has nothing that this check could be done with"
        except (Failed, Unsupported) as outcome:
            cases, verdict, reason = [], outcome.verdict, str(outcome)
        if not cases and (entry.id, "") not in done:
            self._tell(entry, "", verdict, reason)
        for case in cases:
            parameter = "" if case is None else str(case)
            if (entry.id, parameter) in done:
                continue
            self._journal.begin(f"{entry.id} {parameter}")
            self._say({"begun": entry.id, "parameter": parameter})
            start = time.monotonic()
            try:
                verdict, reason = _judge(rig, entry, case)
            except GivenUp as outcome:  # whoever the check is about
                self._tell(replace(entry, subject=Subject.MODULE), parameter, outcome.verdict, f"not done: {outcome}")
            else:
                self._tell(entry, parameter, verdict, reason, time.monotonic() - start)

    def _tell(self, entry: Check, parameter: str, verdict: Verdict, reason: str, seconds: float = 0.0) -> None:
        calls = () if verdict is Verdict.PASS else self._journal.calls
        result = Result(
            id=entry.id,
            parameter=parameter,
            subject=entry.subject,
            level=entry.level,
            verdict=verdict,
            reason=reason,
            calls=calls,
            seconds=round(seconds, 4),
        )
        self._say({"result": asdict(result)})


def _judge(rig: Rig, entry: Check, case: Any) -> tuple[Verdict, str]:  # noqa: ANN401 - the chapter's own kind of case
    """Run one check with one parameter.

    Raises:
        GivenUp: it needs what is not called any more.
    """
    deadly = rig.deadly.get(str(case).partition("/")[0])
    if deadly is not None:
        raise GivenUp(deadly)
    try:
        with rig.case():
            remark = entry.run(rig, case)
    except GivenUp:
        raise
    except (Failed, Finding, Unsupported) as outcome:
        return outcome.verdict, str(outcome)
    except HsmbridgeError as error:
        # A check expects what it expects; that a call in between failed is news about the module, and not a pass.
        return Verdict.ERROR, f"{type(error).__name__}: {error}"[:_LIMIT]
    except Exception as error:  # noqa: BLE001 - the suite's own fault must not look like the module's
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f" at {Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
        return Verdict.ERROR, f"{type(error).__name__}{line}: {error}"[:_LIMIT]
    return Verdict.PASS, remark or ""


def refuse_weak_login(target: Target) -> None:
    """Refuse before the login where a wrong PIN could cost something.

    Raises:
        LoginError: CKF_USER_PIN_COUNT_LOW or CKF_USER_PIN_FINAL_TRY is set.
    """
    token = Module.open(target.module, init_args=target.module_args).token(label=target.label)
    if target.login and token.flags & (CKF.TOKEN_USER_PIN_COUNT_LOW | CKF.TOKEN_USER_PIN_FINAL_TRY):
        raise LoginError(
            f"the last PIN for token {token.label!r} was wrong; a run that logs in is refused",
            hint="log in once with the vendor's own tool and the right PIN: that resets the counter",
        )


def main() -> None:
    """Do the order on standard input, and answer on the file descriptor that is the only argument."""
    disable_core_dumps()
    order = json.loads(sys.stdin.readline())
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as pipe:

        def say(message: dict[str, Any]) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        try:
            worker = Worker(order, say)
            if order["task"] == "describe":
                refuse_weak_login(Target.from_message(order["target"]))
            worker.run()
            say({"end": True})
        except HsmbridgeError as error:
            kind = "unavailable" if isinstance(error, UnavailableError) else "failed"
            say({"stopped": kind, "text": str(error), "hint": error.hint})


if __name__ == "__main__":
    main()
