"""Faults in the calls of a check: which calls are chosen, what the caller gets, and what the plan has seen."""

from __future__ import annotations

from ctypes import byref, c_ulong

import pytest
from hsmbridge_conformance.faults import Deed, Fault, FaultPlan, changing, sample

from hsmbridge.codes import CKR

_NAMES = ["C_FindObjects", "C_UnwrapKey", "C_GetAttributeValue", "C_UnwrapKey", "C_UnwrapKey", "C_DestroyObject"]


def _call(plan: FaultPlan, function: str, *arguments: object) -> tuple[bool, int]:
    """Make one call as the token layer does, on a module that answers CKR_OK.

    Returns: whether the module was asked, and what the caller gets.
    """
    answer = plan.entering(function, arguments)
    return answer is None, plan.returned(CKR.OK if answer is None else answer)


def test_changing_calls_are_those_that_make_change_or_destroy() -> None:
    """Numbers count from 1; searches and reads are left out."""
    assert changing(_NAMES) == [2, 4, 5, 6]


def test_a_sample_has_the_first_and_the_last_call_of_each_function() -> None:
    """A function that is called once is there once, and the numbers ascend."""
    assert sample(_NAMES) == [1, 2, 3, 5, 6]


def test_a_call_that_fails_before_is_not_made() -> None:
    """The module is not asked, the caller gets the error, and the calls around it pass."""
    plan = FaultPlan(Fault(at=2, ckr=CKR.DEVICE_REMOVED))
    assert _call(plan, "C_FindObjects", 1) == (True, CKR.OK)
    assert not plan.spent
    assert _call(plan, "C_GetAttributeValue", 1) == (False, CKR.DEVICE_REMOVED)
    assert plan.spent
    assert _call(plan, "C_GetAttributeValue", 1) == (True, CKR.OK)


def test_onwards_takes_every_later_call() -> None:
    """The calls before it pass, and none from it on does."""
    plan = FaultPlan(Fault(at=2, onwards=True))
    assert [_call(plan, "C_GetAttributeValue", 1)[0] for _ in range(4)] == [True, False, False, False]


def test_a_call_that_fails_after_is_made_and_its_object_is_known() -> None:
    """The caller never learns of the handle; the plan does."""
    plan = FaultPlan(Fault(at=1, deed=Deed.AFTER))
    handle = c_ulong(77)
    assert _call(plan, "C_GenerateKey", 1, 2, byref(handle)) == (True, CKR.DEVICE_ERROR)
    assert plan.orphans == [77]
    assert plan.made == {77}


@pytest.mark.parametrize("function", ["C_Encrypt", "C_Decrypt", "C_Sign", "C_Verify"])
def test_what_concludes_an_operation_is_made_all_the_same(function: str) -> None:
    """Else the session would keep an operation that no failing module keeps."""
    assert _call(FaultPlan(Fault(at=1)), function, 1) == (True, CKR.DEVICE_ERROR)


@pytest.mark.parametrize("function", ["C_EncryptInit", "C_DecryptInit", "C_SignInit", "C_VerifyInit"])
def test_what_begins_an_operation_is_not_made_where_it_fails(function: str) -> None:
    """An Init call that reports an error has begun nothing, on whichever side of it the fault is."""
    assert _call(FaultPlan(Fault(at=1, deed=Deed.AFTER)), function, 1) == (False, CKR.DEVICE_ERROR)


def test_a_second_destroy_of_one_handle_is_noticed() -> None:
    """Also where the first destroy took effect and was said to have failed."""
    plan = FaultPlan(Fault(at=1, deed=Deed.AFTER))
    _call(plan, "C_DestroyObject", 1, 5)
    assert plan.twice == []
    _call(plan, "C_DestroyObject", 1, 5)
    assert plan.twice == [5]


def test_a_destroy_that_was_never_made_may_be_tried_again() -> None:
    """An object that is still there can be found again and removed."""
    plan = FaultPlan(Fault(at=1))
    _call(plan, "C_DestroyObject", 1, 5)
    _call(plan, "C_DestroyObject", 1, 5)
    assert plan.twice == []


def test_a_handle_that_a_module_gives_again_is_another_object() -> None:
    """Some modules reuse handles: the new object may be destroyed, and only what was there before is foreign."""
    plan = FaultPlan()
    handle = c_ulong(9)
    _call(plan, "C_DestroyObject", 1, 9)
    _call(plan, "C_UnwrapKey", 1, 2, byref(handle))
    _call(plan, "C_DestroyObject", 1, 9)
    assert plan.twice == []
    assert plan.foreign == [9]


def test_calls_of_the_binding_are_not_counted() -> None:
    """They come without arguments, and a plan's numbers are those of the token layer."""
    plan = FaultPlan(Fault(at=1))
    assert plan.entering("C_OpenSession", ()) is None
    assert plan.returned(CKR.OK) == CKR.OK
    assert plan.names == []
