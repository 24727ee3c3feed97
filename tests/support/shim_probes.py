"""One small probe for each wrong behaviour of the shim: does the module that the environment names behave that way?

The probes call the module without this project's rules. SHIM_PROBE names the one to run.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
from ctypes import addressof, byref, c_ulong, c_void_p, create_string_buffer
from typing import TYPE_CHECKING

from hsmbridge._ck import CkFunctionList
from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKM
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge.mechanism import Mechanism
from hsmbridge.template import PackedTemplate
from tests.support.children import open_token
from tests.support.tokens import enter_kek, make, request_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token

GUARD = 0xEE


class Bench:
    """A token with an AES KEK, and the raw calls on it in one session."""

    def __init__(self, token: Token, session: int) -> None:
        self.token, self.session = token, session
        self.calls, self.ours = token.calls, Ours(token)
        self.mechanism = Mechanism(CKM.AES_KEY_WRAP)
        self.kek = enter_kek(self.ours, token, secrets.token_bytes(32)).handle

    def make(self, template: Template | None = None) -> int:
        """Generate an AES key."""
        return self.ours.release(make(self.ours, self.token, template)).handle

    def wrap(self, key: int, kek: int | None = None) -> bytes:
        """Call C_WrapKey."""
        return self.calls.wrap_key(self.session, self.mechanism, kek or self.kek, key)

    def unwrap(self, blob: bytes, template: Template | None = None, key_type: CKK = CKK.AES) -> int:
        """Call C_UnwrapKey."""
        request = request_for(key_type, template)
        whole: dict[int, Value] = {CKA.CLASS: request.cls, CKA.KEY_TYPE: key_type, **request.template}
        return self.calls.unwrap_key(self.session, self.mechanism, self.kek, blob, PackedTemplate(whole))

    def read(self, handle: int, kind: CKA) -> Value | None:
        """Read one attribute; None if it, or the object, cannot be read."""
        try:
            return AttributeQuery([kind]).read(self.calls, self.session, handle).get(kind)
        except Pkcs11Error:
            return None

    def destroy(self, handle: int) -> None:
        """Call C_DestroyObject."""
        self.calls.destroy_object(self.session, handle)

    def wrap_into(self, key: int, room: int | None) -> tuple[int, bytes]:
        """Wrap into a buffer said to be that long, None for a size query; return the length and a longer buffer."""
        buffer, length = create_string_buffer(bytes([GUARD]) * 128, 128), c_ulong(room or 0)
        at = None if room is None else addressof(buffer)
        ckr = self.calls.wrap_key_into(self.session, self.mechanism, self.kek, key, at, addressof(length))
        if ckr != 0:
            raise Pkcs11Error("C_WrapKey", ckr)
        return length.value, buffer.raw


def accepted(call: Callable[[], object]) -> bool:
    """Tell whether the module takes what it must refuse."""
    try:
        call()
    except Pkcs11Error:
        return False
    return True


def accepts_flipped_bits(bench: Bench) -> bool:
    """Unwrap a blob with one bit changed."""
    blob = bytearray(bench.wrap(bench.make()))
    blob[11] ^= 4
    return accepted(lambda: bench.unwrap(bytes(blob)))


def crashes(bench: Bench) -> bool:
    """Wrap; whoever is alive afterwards did not crash."""
    bench.wrap(bench.make())
    return False


def destroy_does_nothing(bench: Bench) -> bool:
    """Destroy, and look for the object."""
    key = bench.make()
    bench.destroy(key)
    return bench.read(key, CKA.KEY_TYPE) is not None


def destroys_neighbour(bench: Bench) -> bool:
    """Make three, destroy one, look for the others."""
    first, second, third = (bench.make() for _ in range(3))
    bench.destroy(first)
    assert bench.read(third, CKA.KEY_TYPE) is not None
    return bench.read(second, CKA.KEY_TYPE) is None


def hangs(bench: Bench) -> bool:
    """Unwrap; whoever comes back did not hang."""
    bench.unwrap(bench.wrap(bench.make()))
    return False


def ignores_destroyable(bench: Bench) -> bool:
    """Destroy a session object with CKA_DESTROYABLE=false."""
    key = bench.make({CKA.DESTROYABLE: False})
    assert bench.read(key, CKA.DESTROYABLE) is False
    return accepted(lambda: bench.destroy(key))


def ignores_extractable(bench: Bench) -> bool:
    """Wrap a key that says that it must not leave."""
    key = bench.make({CKA.EXTRACTABLE: False})
    assert (bench.read(key, CKA.EXTRACTABLE), bench.read(key, CKA.NEVER_EXTRACTABLE)) == (False, True)
    return accepted(lambda: bench.wrap(key))


def ignores_wrap_flag(bench: Bench) -> bool:
    """Wrap under a key that says that it does not wrap."""
    kek = enter_kek(bench.ours, bench.token, secrets.token_bytes(32), {CKA.WRAP: False}).handle
    wrapped = accepted(lambda: bench.wrap(bench.make(), kek))
    assert bench.read(kek, CKA.WRAP) is False
    return wrapped


def leaves_debris(bench: Bench) -> bool:
    """Count objects before and after an unwrap of noise."""
    before = set(bench.token.handles({}))
    assert not accepted(lambda: bench.unwrap(secrets.token_bytes(40)))
    return set(bench.token.handles({})) != before


def loses_attributes(bench: Bench) -> bool:
    """Unwrap with a label, and look for it."""
    key = bench.unwrap(bench.wrap(bench.make()), {CKA.LABEL: "asked for"})
    return bench.read(key, CKA.LABEL) != "asked for"


def overruns_buffer(bench: Bench) -> bool:
    """Wrap into a buffer of just the right size, with guard bytes behind it."""
    key = bench.make()
    size = len(bench.wrap(key))
    length, buffer = bench.wrap_into(key, size)
    assert length == size
    return set(buffer[size:]) != {GUARD}


def pads_lengths(bench: Bench) -> bool:
    """Take a readable secret of 24 bytes through wrap and unwrap."""
    blob = bench.wrap(bench.make({CKA.VALUE_LEN: 24}))
    key = bench.unwrap(blob, {CKA.SENSITIVE: False}, CKK.GENERIC_SECRET)
    value = bench.read(key, CKA.VALUE)
    assert isinstance(value, bytes)
    assert value[24:] == bytes(len(value) - 24)
    return len(value) != 24


def readable_sensitive(bench: Bench) -> bool:
    """Read the value of a key that says that it is sensitive."""
    key = bench.make()
    assert (bench.read(key, CKA.SENSITIVE), bench.read(key, CKA.ALWAYS_SENSITIVE)) == (True, True)
    return bool(bench.read(key, CKA.VALUE))


def reuses_handles(bench: Bench) -> bool:
    """Destroy a key, make one of another size, and ask the old handle."""
    stale = bench.make()
    bench.destroy(stale)
    assert bench.read(stale, CKA.KEY_TYPE) is None
    new = bench.make({CKA.LABEL: "the new one"})
    assert bench.token.handles({CKA.LABEL: "the new one"}) == [new]
    bench.wrap(new)
    return bench.read(stale, CKA.LABEL) == "the new one"


def settable_local(bench: Bench) -> bool:
    """Unwrap with CKA_LOCAL=true in the template."""
    blob = bench.wrap(bench.make())
    return accepted(lambda: bench.unwrap(blob, {CKA.LOCAL: True})) or bench.read(bench.unwrap(blob), CKA.LOCAL) is True


def size_query_too_small(bench: Bench) -> bool:
    """Compare a size query with what is then written."""
    key = bench.make()
    length, _ = bench.wrap_into(key, None)
    return length < len(bench.wrap(key))


def unwrap_does_nothing(bench: Bench) -> bool:
    """Unwrap, and look for the object."""
    return bench.read(bench.unwrap(bench.wrap(bench.make())), CKA.KEY_TYPE) is None


def wrong_login(bench: Bench) -> bool:
    """Log out, and look for a private object."""
    key_id = secrets.token_bytes(16)
    key = bench.make({CKA.PRIVATE: True, CKA.ID: key_id})
    assert bench.read(key, CKA.PRIVATE) is True
    table = c_void_p()
    module = ctypes.CDLL(os.environ["PKCS11_MODULE"])
    assert module.C_GetFunctionList(byref(table)) == 0
    functions = CkFunctionList.from_address(table.value or 0)
    assert ctypes.CFUNCTYPE(c_ulong, c_ulong)(functions.C_Logout)(bench.session) == 0
    return bool(bench.calls.find_objects(bench.session, PackedTemplate({CKA.ID: key_id})))


def main() -> None:
    """Run the probe; a token that cannot be asked says why."""
    probe: Callable[[Bench], bool] = globals()[os.environ["SHIM_PROBE"].replace("-", "_")]
    token = open_token()
    with token.sessions as session:
        try:
            answer = {"wrong": probe(Bench(token, session)), "unable": ""}
        except HsmbridgeError as error:
            answer = {"wrong": False, "unable": str(error)}
    print(json.dumps(answer))  # noqa: T201 # the parent reads it


if __name__ == "__main__":
    main()
