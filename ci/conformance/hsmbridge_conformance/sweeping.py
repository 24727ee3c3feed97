"""A sweep: one operation again and again, each time with another call that fails, and a judgement after each."""

from __future__ import annotations

import logging
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hsmbridge.codes import ckr_name
from hsmbridge.errors import HsmbridgeError
from hsmbridge_conformance.faults import FaultPlan
from hsmbridge_conformance.handing import must_work
from hsmbridge_conformance.verdict import Failed, Finding, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsmbridge.objects import Object
    from hsmbridge_conformance.disturbed import Operation
    from hsmbridge_conformance.faults import Fault
    from hsmbridge_conformance.rig import Rig

__all__ = ["disturbing", "sweep"]

_REPORTED = ("may be left", "not everything could be removed")
"""How errors, their notes and log lines speak of what is left behind, or may be."""

_WINDOW = 8
"""Bytes of a key in a row that no text has by chance."""


class _Remarks(logging.Handler):
    """Keeps what the toolkit logs: what is left behind may be reported there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(self.format(record))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to hsmbridge's own loggers."""
        loggers = [logging.getLogger(name) for name in ("hsmbridge", "hsmbridge_csp")]
        before = [logger.propagate for logger in loggers]
        for logger in loggers:
            logger.addHandler(self)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, propagate in zip(loggers, before, strict=True):
                logger.removeHandler(self)
                logger.propagate = propagate


@contextmanager
def disturbing(rig: Rig, plan: FaultPlan) -> Iterator[None]:
    """Put a plan to work."""
    rig.journal.faults = plan
    try:
        yield
    finally:
        rig.journal.faults = None


def sweep(rig: Rig, make: Callable[[Rig], Operation], faults: Callable[[list[int], list[str]], Iterator[Fault]]) -> str:
    """Do an operation with each fault in turn.

    Args:
        rig: the worker's means.
        make: makes the operation, with a fresh key.
        faults: says what is to be tried, given the numbers of the calls that the operation would have tried, and the
            functions that an undisturbed run calls, in order.

    Returns: how much was tried.

    Raises:
        Failed: a judgement; the sentence names call and fault. Unsupported: it does not work undisturbed either.
    """
    with must_work("it does not work undisturbed"):
        _undisturbed(rig, make)  # afterwards the module's mechanisms are known
        numbers, names = _undisturbed(rig, make)
    tried = 0
    for fault in faults(numbers, names):
        try:
            problems = _one(rig, make, fault)
        except HsmbridgeError as error:
            problems = [f"afterwards nothing works any more: {type(error).__name__}: {error}"]
        if problems:
            name = names[fault.at - 1] if fault.at <= len(names) else "a later call"
            onwards = " and all later ones" if fault.onwards else ""
            raise Failed(f"{fault.deed}:{ckr_name(fault.ckr)} at call {fault.at} ({name}){onwards}: {problems[0]}")
        tried += 1
    return f"{len(names)} calls, {tried} faults"


def _undisturbed(rig: Rig, make: Callable[[Rig], Operation]) -> tuple[list[int], list[str]]:
    operation = make(rig)
    operation.prepare()
    plan = FaultPlan()
    with disturbing(rig, plan):
        operation.run()
    _remove(rig, operation.results)
    _drop(rig, operation.source)
    return operation.numbers(plan.names), plan.names


def _one(rig: Rig, make: Callable[[Rig], Operation], fault: Fault) -> list[str]:
    operation = make(rig)
    operation.prepare()
    before = rig.inventory()
    plan, remarks = FaultPlan(fault), _Remarks()
    with disturbing(rig, plan), remarks.listening():
        error = _attempt(operation.run)
    raised = {id(one): one for one in (error, *operation.errors) if one is not None}.values()
    said = [*remarks.lines, *(line for one in raised for line in traceback.format_exception(one))]
    problems = [f"no typed error, but {type(one).__name__}: {one}" for one in raised if _untyped(one)]
    left = _left_behind(rig, operation, before)
    problems += _judge(rig, operation, plan, before, left, "\n".join(said))
    problems += operation.judge(plan, error)
    if not operation.settles:
        _remove(rig, left)
    if not problems:
        problems += _recovers(rig, operation)
    if operation.settles:
        _remove(rig, left)
    _remove(rig, operation.results)
    _drop(rig, operation.source)
    return problems


def _attempt(run: Callable[[], None]) -> BaseException | None:
    try:
        run()
    except (Failed, Finding, Unsupported):
        raise
    except Exception as error:  # noqa: BLE001 - whether its kind is right is what is judged
        return error
    return None


def _untyped(error: BaseException) -> bool:
    return not isinstance(error, HsmbridgeError)


def _left_behind(rig: Rig, operation: Operation, before: frozenset[int]) -> list[Object]:
    """Return what is there and is neither from before nor a result."""
    results = {made.handle for made in operation.results if made.alive}
    new = [rig.token.adopt(handle) for handle in rig.inventory() - before - results]
    return new + [found for found in operation.in_token() if found.handle not in results]


def _judge(  # noqa: PLR0913, PLR0917 - before and after
    rig: Rig, operation: Operation, plan: FaultPlan, before: frozenset[int], left: list[Object], said: str
) -> Iterator[str]:
    """Yield what is wrong with any operation: a wrong destroy, a loss, something left behind, a secret told."""
    if plan.twice:
        yield "C_DestroyObject was called a second time for one object"
    if set(plan.foreign) - operation.may_destroy:
        yield "C_DestroyObject was called for an object that the operation had not made"
    if before - rig.inventory() - operation.may_destroy:
        yield "a session object is gone that the operation had not made"
    if left:
        yield from operation.left_behind(left)
        if not any(words in said for words in _REPORTED):
            yield f"{len(left)} objects are left behind, and nobody says so"
    raw = operation.secret
    if any(raw[at : at + _WINDOW].hex() in said for at in range(max(0, len(raw) - _WINDOW))):
        yield "bytes of the key are to be read in an error"
    if rig.target.pin and rig.target.pin in said:
        yield "the PIN is to be read in an error"


def _recovers(rig: Rig, operation: Operation) -> Iterator[str]:
    """Yield a sentence where the operation does not come to its end once nothing is in the way."""
    before = rig.inventory()
    try:
        operation.again()
    except HsmbridgeError as error:
        yield f"without a fault it still fails: {type(error).__name__}: {error}"
        return
    results = {made.handle for made in operation.results if made.alive}
    if rig.inventory() - before - results:
        yield "a second attempt leaves session objects behind"


def _remove(rig: Rig, objects: list[Object]) -> None:
    for made in objects:
        if made.alive:
            made.know(made.read_identity())  # a fault may have come between a new name and whoever gave it
            rig.ours.remove(rig.ours.take(made))


def _drop(rig: Rig, source: Object) -> None:
    if source.alive:
        rig.ours.remove(source)
