"""The second process itself: it opens the token and does what it is asked, one JSON line at a time."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.hardening import disable_core_dumps

from hsmbridge.codes import CKA, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError
from hsmbridge.mechanism import Mechanism
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.importing import Importing
from hsmbridge_conformance.target import Target
from hsmbridge_conformance.wrapcases import ALL_CASES

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["Peering", "main"]


class Peering:
    """What the second process can be asked to do; each method is one verb."""

    def __init__(self) -> None:
        self._token: Token | None = None
        self._importing: Importing | None = None

    def open(self, target: dict[str, Any], prefix: str) -> bool:
        """Open the token and log in."""
        self._token = Target.from_message(target).open()
        self._importing = Importing(self._token, bytes.fromhex(prefix))
        return True

    @property
    def token(self) -> Token:
        """The token."""
        if self._token is None:
            raise HsmbridgeError("not open yet")
        return self._token

    def count(self, cls: int, key_id: str) -> int:
        """Return how many objects of a class have a CKA_ID."""
        return len(self.token.handles({CKA.CLASS: cls, CKA.ID: bytes.fromhex(key_id)}))

    def use_unwrapped(self, case: str, kek_id: str, wrapped: str, template: dict[str, Any], use: list[Any]) -> str:
        """Unwrap under a token KEK into a session object, use it once, and remove it.

        Args:
            case: name of a wrapping mechanism.
            kek_id: CKA_ID of the KEK.
            wrapped: what C_WrapKey gave, hex.
            template: CKA number to value; bytes as ``hex:…``.
            use: ``[C function, mechanism number, parameter hex or null, data hex]``.

        Returns: the output of the use, hex.
        """
        mechanism = next(entry for entry in ALL_CASES if entry.name == case).mechanism
        wanted = {int(kind): _value(value) for kind, value in template.items()}
        with Ours(self.token) as ours, self.token.sessions as session:
            kek = self._kek(bytes.fromhex(kek_id))
            handle = self.token.calls.unwrap_key(
                session, mechanism, kek.handle, bytes.fromhex(wrapped), PackedTemplate(wanted)
            )
            key = ours.adopt(handle)
            verb, number, parameter, data = use
            how = Mechanism(CKM(number), bytes.fromhex(parameter) if parameter else None)
            run = self.token.calls.sign if verb == "C_Sign" else self.token.calls.encrypt
            return run(session, how, key.handle, bytes.fromhex(data)).hex()

    def import_blob(self, blob: str, kek_id: str) -> int:
        """Import an OPAQUEKEYBLOB by the provider and keep the key.

        Returns: a number for :meth:`go_on` and :meth:`drop`.
        """
        return self._importer.take(bytes.fromhex(blob), self._kek(bytes.fromhex(kek_id)))

    def go_on(self, number: int, verb: str, data: str) -> str:
        """Use an imported key in the state in which it arrived; the output as hex."""
        return self._importer.go_on(number, verb, bytes.fromhex(data)).hex()

    def drop(self, number: int) -> str:
        """Destroy an imported key; what became of it."""
        return self._importer.drop(number)

    @property
    def _importer(self) -> Importing:
        if self._importing is None:
            raise HsmbridgeError("not open yet")
        return self._importing

    def _kek(self, key_id: bytes) -> Object:
        for cls in (CKO.SECRET_KEY, CKO.PRIVATE_KEY):
            found = self.token.find({CKA.CLASS: cls, CKA.ID: key_id})
            if found:
                return found[0]
        raise HsmbridgeError(f"the second process does not see the KEK with id {key_id.hex()}")


def _value(value: Any) -> Any:  # noqa: ANN401 - JSON to a template's value
    return bytes.fromhex(value[4:]) if isinstance(value, str) and value.startswith("hex:") else value


def main() -> None:
    """Serve until the pipe closes."""
    disable_core_dumps()
    peering = Peering()
    with (
        os.fdopen(int(sys.argv[1]), encoding="utf-8") as requests,
        os.fdopen(int(sys.argv[2]), "w", encoding="utf-8") as answers,
    ):
        for line in requests:
            request = json.loads(line)
            try:
                reply = {"answer": getattr(peering, request.pop("verb"))(**request)}
            except HsmbridgeError as error:
                reply = {"error": str(error)}
            answers.write(json.dumps(reply) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
