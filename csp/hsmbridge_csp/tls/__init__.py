"""TLS record keys that can leave one process and go on in another, and how they are derived.

Source: docs/tls.md; RFC 5246 (TLS 1.2); RFC 8446 (TLS 1.3).
"""

from __future__ import annotations

from hsmbridge_csp.tls.alerts import AlertDescription, ContentType, TlsAlertError
from hsmbridge_csp.tls.derive import Side, TlsKeyPair, derive_tls12_keys, derive_tls13_keys
from hsmbridge_csp.tls.prf import Randoms
from hsmbridge_csp.tls.record_key import TlsRecordKey
from hsmbridge_csp.tls.state import TlsRecordState
from hsmbridge_csp.tls.suites import CipherSuite, TlsVersion
from hsmbridge_csp.tls.token_derive import TokenTlsKeys

__all__ = [
    "AlertDescription",
    "CipherSuite",
    "ContentType",
    "Randoms",
    "Side",
    "TlsAlertError",
    "TlsKeyPair",
    "TlsRecordKey",
    "TlsRecordState",
    "TlsVersion",
    "TokenTlsKeys",
    "derive_tls12_keys",
    "derive_tls13_keys",
]
