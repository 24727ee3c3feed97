"""What an unwrapped key shall be.

Source: PKCS#11 v3.1 section 5.14.4 (the template of C_UnwrapKey).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.codes import CKK, CKO
    from hsmbridge.template import Value

__all__ = ["KeyRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What the wrapped bytes are, and what the new object shall be.

    Attributes:
        cls: CKO_SECRET_KEY or CKO_PRIVATE_KEY.
        key_type: CKK_.
        template: every other attribute that is named to the token and read back; CKA_TOKEN says whether the key is
            kept.
        expected: attributes that are not named, since they are the defaults, but read back all the same.
        size: a secret's length in bytes where that is known from an authenticated record.
        ec_point: the uncompressed public point of an EC private key, which NSS cannot do without.
    """

    cls: CKO
    key_type: CKK
    template: Mapping[int, Value]
    expected: Mapping[int, Value] = field(default_factory=dict)
    size: int | None = None
    ec_point: bytes = b""

    @property
    def persistent(self) -> bool:
        """Whether a token object is wanted."""
        return self.template.get(CKA.TOKEN) is True
