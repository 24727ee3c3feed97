"""A child process that puts keys of known bytes into a token, with exactly the attributes asked for.

Standard input: ``[{"key_type": "AES", "value": "hex", "attributes": {"LABEL": "x", "WRAP": true, "ID": "hex:0a"}}]``.
For RSA the value is a modulus, and a public key with exponent 65537 is made.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.entry import key_entry
from hsmbridge.template import PackedTemplate
from tests.support.children import close, open_token
from tests.support.tokens import RAW_USAGE

if TYPE_CHECKING:
    from hsmbridge.template import Value

__all__ = ["main"]


_PUBLIC_USAGE: dict[int, Value] = {CKA.ENCRYPT: False, CKA.VERIFY: False, CKA.WRAP: False}


def _value(value: str | bool) -> str | bool | bytes:  # noqa: FBT001 - a CK_BBOOL is a value, not a flag
    return bytes.fromhex(value[4:]) if isinstance(value, str) and value.startswith("hex:") else value


def main() -> None:
    """Put the keys in, and print how many there were."""
    wanted = json.load(sys.stdin)
    token = open_token()
    with Ours(token) as ours:
        for key in wanted:
            named: dict[int, Value] = {CKA[name]: _value(value) for name, value in key["attributes"].items()}
            value = bytes.fromhex(key["value"])
            if key["key_type"] == "RSA":
                public: dict[int, Value] = {
                    CKA.CLASS: CKO.PUBLIC_KEY,
                    CKA.KEY_TYPE: CKK.RSA,
                    CKA.TOKEN: True,
                    **_PUBLIC_USAGE,
                    **named,
                }
                public |= {CKA.MODULUS: value, CKA.PUBLIC_EXPONENT: b"\x01\x00\x01"}
                with token.sessions as session:
                    token.calls.create_object(session, PackedTemplate(public))
                continue
            template: dict[int, Value] = {
                CKA.TOKEN: True,
                CKA.PRIVATE: True,
                CKA.SENSITIVE: True,
                **dict.fromkeys(RAW_USAGE, False),
            }
            ours.release(key_entry(token).enter(ours, CKK[key["key_type"]], value, template | named))
    close(token)
    sys.stdout.write(json.dumps({"keys": len(wanted)}))


if __name__ == "__main__":
    main()
