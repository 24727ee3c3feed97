"""A report that has every verdict, on a token that calls itself what no token should."""

from __future__ import annotations

from typing import Any

from hsmbridge_conformance.catalogue import all_checks
from hsmbridge_conformance.report import Report
from hsmbridge_conformance.verdict import Call, Level, Result, Subject, Verdict

__all__ = ["HOSTILE", "hostile_report", "result", "sample_report"]

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m\u202egnp|`]]>&amp;'\"\ud800 @everyone"
"""A label as an attacker would choose it."""

_OK = Call(function="C_WrapKey", ckr="CKR_OK")
_TYPES = ("aes:128", "aes:256", "des3", "generic:20", "generic:32", "rsa:2048", "ec:p-256", "ed25519")
_MECHANISMS = {
    "CKM_AES_KEY_WRAP": "++++!---",
    "CKM_AES_KEY_WRAP_PAD": "+++x+~+u",
    "CKM_AES_KEY_WRAP_KWP": "++++++++",
    "CKM_AES_CBC_PAD": "++++++  ",
    "CKM_RSA_PKCS_OAEP+SHA_1": "+++++w--",
    "CKM_RSA_PKCS_OAEP+SHA256": "+++++---",
}
_SIGNS = {
    "+": (Verdict.PASS, ""),
    "x": (Verdict.FAIL, "20 bytes came back as 24"),
    "~": (Verdict.FINDING, "C_UnwrapKey needs CKA_EC_PARAMS, which the specification does not have"),
    "!": (Verdict.ERROR, "KeyError at e2e.py:12: 3"),
    "w": (Verdict.WAIVED, "the private key signs, its public key does not verify"),
    "-": (Verdict.UNSUPPORTED, "C_WrapKey failed: CKR_KEY_SIZE_RANGE"),
    "u": (Verdict.UNSUPPORTED, "the module makes no Ed25519 keys: CKR_MECHANISM_INVALID"),
}


def result(
    check_id: str = "HSB-WRAP-001",
    parameter: str = "",
    verdict: Verdict = Verdict.PASS,
    reason: str = "",
    **more: Any,  # noqa: ANN401 - whatever else a result has
) -> Result:
    """Make a result, of a MUST about the module unless *more* says otherwise."""
    fields: dict[str, Any] = {"subject": Subject.MODULE, "level": Level.MUST, "seconds": 0.125, **more}
    return Result(id=check_id, parameter=parameter, verdict=verdict, reason=reason, **fields)


def sample_report() -> Report:
    """Return a report with every check of the catalogue and every verdict."""
    results = [
        result(entry.id, "", level=entry.level, subject=entry.subject)
        for entry in all_checks()
        if entry.id not in {"HSB-E2E-001", "HSB-E2E-002", "HSB-WRAP-001"}
    ]
    results += [
        result("HSB-WRAP-001", "CKM_AES_KEY_WRAP"),
        result(
            "HSB-WRAP-001",
            "CKM_AES_CBC_PAD",
            Verdict.FAIL,
            "a key with CKA_EXTRACTABLE=false was wrapped",
            calls=(Call(function="C_GenerateKey", ckr="CKR_OK", times=2), _OK),
        ),
        result(
            "HSB-WRAP-004", "CKM_AES_KEY_WRAP_KWP", Verdict.FAIL, "SIGSEGV ended the process in C_WrapKey",
            calls=(Call(function="C_WrapKey", ckr=None),),
        ),
    ]  # fmt: skip
    for mechanism, signs in _MECHANISMS.items():
        for key_type, sign in zip(_TYPES, signs, strict=True):
            if sign == " ":
                continue
            verdict, reason = _SIGNS[sign]
            check_id = "HSB-E2E-002" if key_type[:2] in {"rs", "ec", "ed"} else "HSB-E2E-001"
            waiver = "C_Verify -> CKR_SIGNATURE_INVALID, ticket 12" if verdict is Verdict.WAIVED else ""
            calls = () if verdict is Verdict.PASS else (_OK, Call(function="C_UnwrapKey", ckr="CKR_KEY_SIZE_RANGE"))
            parameter = f"{mechanism}/{key_type}"
            results.append(result(check_id, parameter, verdict, reason, calls=calls, waiver=waiver))
    return _report(tuple(results), "SoftHSM v2", "payments")


def hostile_report() -> Report:
    """Return a report whose every text is :data:`HOSTILE`."""
    results = [
        result(
            "HSB-E2E-001", f"CKM_{HOSTILE}/{HOSTILE}", verdict, HOSTILE,
            calls=(Call(function=HOSTILE, ckr=HOSTILE),), waiver=HOSTILE if verdict is Verdict.WAIVED else "",
        )
        for verdict in Verdict
    ]  # fmt: skip
    return _report(tuple(results), HOSTILE, HOSTILE, problems=(HOSTILE,))


def _report(results: tuple[Result, ...], module: str, label: str, problems: tuple[str, ...] = ()) -> Report:
    return Report(
        suite="0.1.0",
        started="2026-03-14T09:26:53+00:00",
        seconds=14.2,
        module={"path": "/usr/lib/vendor.so", "description": module, "manufacturer": label, "version": "2.6"},
        token={
            "label": label,
            "serial": "0123abcd",
            "model": "M1",
            "manufacturer": "V",
            "firmware": "2.6",
            "mechanisms": [],
        },
        results=results,
        problems=problems,
        options={"level": "info", "only": [], "scratch": False, "exact": False},
    )
