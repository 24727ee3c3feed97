"""Values longer than anybody expects: a label is whatever its writer wants."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA
from hsmbridge.destruction import Ours
from hsmbridge.errors import Pkcs11Error
from tests.support.tokens import make

if TYPE_CHECKING:
    from hsmbridge.token import Token


@pytest.mark.parametrize("size", [300, 5000])
def test_a_long_label_is_read_whole(token: Token, size: int) -> None:
    """A label longer than our first buffer comes back whole; NSS writes past a buffer that is too small."""
    label = secrets.token_hex(size // 2)
    with Ours(token) as ours:
        try:
            key = make(ours, token, {CKA.LABEL: label})
        except Pkcs11Error as error:
            pytest.skip(f"the token takes no such label: {error}")
        for _ in range(50):
            assert key.read_identity().label == label
        assert key.identity.label == label
