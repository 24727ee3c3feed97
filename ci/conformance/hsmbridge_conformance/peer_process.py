"""The second process itself: it opens the token and does what it is asked, one JSON line at a time."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.hardening import disable_core_dumps

from hsmbridge.codes import CKA, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError, LoginError, Pkcs11Error
from hsmbridge.mechanism import Mechanism
from hsmbridge.observing import observe
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.importing import Importing
from hsmbridge_conformance.journal import CallJournal
from hsmbridge_conformance.keymaking import KeyMaker
from hsmbridge_conformance.peer_bare import destroy_while_searching, go_on_with_digest
from hsmbridge_conformance.peer_moving import MovingVerbs
from hsmbridge_conformance.target import Target
from hsmbridge_conformance.verdict import Unsupported
from hsmbridge_conformance.wrapcases import ALL_CASES

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["Peering", "main"]


class Peering(MovingVerbs):
    """What the second process can be asked to do; each public method is one verb.

    Args:
        journal: the calls that this process makes.
    """

    def __init__(self, journal: CallJournal) -> None:
        super().__init__(journal)
        self._token: Token | None = None
        self._target: dict[str, Any] = {}
        self._prefix = ""
        self._importing: Importing | None = None
        self._maker: KeyMaker | None = None

    def open(self, target: dict[str, Any], prefix: str) -> bool:
        """Open the token, and log in where the target says so."""
        self._target, self._prefix = target, prefix
        self._token = Target.from_message(target).open()
        self._maker = KeyMaker(self._token, bytes.fromhex(prefix))
        return True

    def reopen(self) -> bool:
        """Close all sessions and begin anew, with another login."""
        self.token.close()
        return self.open(self._target, self._prefix)

    def close(self) -> None:
        """Let go of the module: tokens with few sessions (a TPM has three) miss every one that is not given back."""
        if self._token is not None:
            with suppress(HsmbridgeError):
                self._token.close()
                self._token.calls.finalize()

    @property
    def token(self) -> Token:
        """The token."""
        if self._token is None:
            raise HsmbridgeError("not open yet")
        return self._token

    def count(self, key_id: str, cls: int | None = None) -> int:
        """Return how many objects have a CKA_ID, of one class or of all."""
        kind: dict[int, Any] = {} if cls is None else {CKA.CLASS: cls}
        return len(self.token.handles({**kind, CKA.ID: bytes.fromhex(key_id)}))

    def make(self, spec: str) -> str:
        """Generate a session key, which lives as long as this process; its CKA_ID as hex."""
        if self._maker is None:
            raise HsmbridgeError("not open yet")
        return self._maker.make(spec).identity.id.hex()

    def destroy_while_searching(self, seconds: float) -> int:
        """Search in one thread and destroy in another; how many keys were destroyed."""
        return destroy_while_searching(self.token, bytes.fromhex(self._prefix), seconds)

    def go_on_with_digest(self, state: str, data: str) -> str:
        """End a digest that another process began; the digest as hex."""
        return go_on_with_digest(self.token, bytes.fromhex(state), bytes.fromhex(data)).hex()

    def log_in_once(self, pin: str) -> dict[str, Any]:
        """Log in with a PIN, as a program that uses hsmbridge does.

        Returns: how often C_Login was called, and what it answered where the login failed.
        """
        before, ckr = self._journal.counted("C_Login"), None
        try:
            self.token.login(pin)
        except LoginError as error:
            ckr = error.ckr
        return {"calls": self._journal.counted("C_Login") - before, "ckr": ckr, "logged_in": self.token.logged_in}

    def use_unwrapped(
        self, case: str, kek_id: str, wrapped: str, template: dict[str, Any], use: list[Any]
    ) -> dict[str, Any]:
        """Unwrap under a token KEK into a session object, use it once, and remove it.

        Args:
            case: name of a wrapping mechanism.
            kek_id: CKA_ID of the KEK.
            wrapped: what C_WrapKey gave, hex.
            template: CKA number to value; bytes as ``hex:…``.
            use: ``[C function, mechanism number, parameter hex or null, data hex]``.

        Returns: the output of the use, hex, and the bytes of a secret key where the module lets them be read; the key
            is one that the suite has just made up.
        """
        mechanism = next(entry for entry in ALL_CASES if entry.name == case).mechanism
        wanted = {int(kind): _value(value) for kind, value in template.items()}
        kek, data = self._kek(bytes.fromhex(kek_id)), bytes.fromhex(wrapped)
        verb, number, parameter, text = use
        with Ours(self.token) as ours:
            key = self._unwrap(ours, mechanism, kek, data, wanted)
            how = Mechanism(CKM(number), bytes.fromhex(parameter) if parameter else None)
            run = self.token.calls.sign if verb == "C_Sign" else self.token.calls.encrypt
            with self.token.sessions as session:
                output = run(session, how, key.handle, bytes.fromhex(text))
            value = None
            if wanted[CKA.CLASS] == CKO.SECRET_KEY:
                changes: tuple[dict[int, Any], ...] = ({}, {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True})
                for change in changes:
                    with suppress(HsmbridgeError):
                        value = bytes(self._unwrap(ours, mechanism, kek, data, {**wanted, **change}).read_value())
                        break
        return {"output": output.hex(), "value": None if value is None else value.hex()}

    def import_blob(self, blob: str, kek_id: str) -> int:
        """Import an OPAQUEKEYBLOB by the provider and keep the key.

        Returns: a number for :meth:`go_on` and :meth:`drop`.
        """
        if self._importing is None:
            self._importing = Importing(self.token)
        return self._importing.take(bytes.fromhex(blob), self._kek(bytes.fromhex(kek_id)))

    def go_on(self, number: int, use: str, data: str) -> str:
        """Use an imported key in the state in which it arrived; the output as hex."""
        return self._imported.go_on(number, use, bytes.fromhex(data)).hex()

    def drop(self, number: int) -> str:
        """Destroy an imported key; what became of it."""
        return self._imported.drop(number)

    @property
    def _imported(self) -> Importing:
        if self._importing is None:
            raise HsmbridgeError("nothing was imported yet")
        return self._importing

    def _unwrap(
        self, ours: Ours, mechanism: Mechanism, kek: Object, wrapped: bytes, template: dict[int, Any]
    ) -> Object:
        with self.token.sessions as session:
            packed = PackedTemplate(template)
            return ours.adopt(self.token.calls.unwrap_key(session, mechanism, kek.handle, wrapped, packed))

    def _kek(self, key_id: bytes) -> Object:
        for cls in (CKO.SECRET_KEY, CKO.PRIVATE_KEY):
            found = self.token.find({CKA.CLASS: cls, CKA.ID: key_id})
            if found:
                return found[0]
        raise HsmbridgeError(f"the second process does not see the KEK with id {key_id.hex()}")


def _value(value: Any) -> Any:  # noqa: ANN401 - JSON to a template's value
    return bytes.fromhex(value[4:]) if isinstance(value, str) and value.startswith("hex:") else value


def _answer(peering: Peering, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"answer": getattr(peering, request.pop("verb"))(**request)}
    except Unsupported as outcome:
        return {"unsupported": str(outcome)}
    except Pkcs11Error as error:
        return {"error": str(error), "function": error.function, "ckr": error.ckr}
    except HsmbridgeError as error:
        return {"error": str(error)}


def main() -> None:
    """Serve until the pipe closes: requests and answers are on the descriptors that the arguments name."""
    disable_core_dumps()
    journal = CallJournal(Path(sys.argv[3]))
    observe(journal)
    peering = Peering(journal)
    with (
        os.fdopen(int(sys.argv[1]), encoding="utf-8") as requests,
        os.fdopen(int(sys.argv[2]), "w", encoding="utf-8") as answers,
    ):
        for line in requests:
            answers.write(json.dumps(_answer(peering, json.loads(line))) + "\n")
            answers.flush()
    peering.close()


if __name__ == "__main__":
    main()
