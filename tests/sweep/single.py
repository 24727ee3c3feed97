"""The operations of a single process: export, import, destroy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.provider import Provider
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.errors import HsmbridgeError
from tests.sweep.bench import MOVING
from tests.sweep.keys import describe, kek_of, source_of, warm

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key

    from hsmbridge.token import Token
    from tests.sweep.link import Link
    from tests.sweep.operations import Operation
    from tests.sweep.scene import Scene

__all__ = ["act", "import_again"]


def act(link: Link, scene: Scene, operation: Operation) -> None:
    """Do it, and say what came of it; the key's state and all objects of the process follow."""
    token = scene.open_token()
    warm(token)
    look = scene.look(fresh=False)
    provider = Provider(token, identity=scene.bench.identity("sender"))
    kek = kek_of(token)
    _ = kek.fingerprint
    is_import = operation.name.startswith("import-")
    key: Key | None = None if is_import else source_of(operation.sources[0], scene, token).key
    before = look.objects()
    link.say("ready", objects=[found.handle for found in before], hardware=look.bystanders(scene.bench))
    scene.arm_calls("actor")
    said: dict[str, object] = {"outcome": "done", "error": "", "notes": [], "typed": True}
    try:
        if operation.name == "export" and key is not None:
            (scene.work / "blob").write_bytes(provider.export_key(key, kek))
        elif is_import:
            persist = operation.name == "import-token"
            key = provider.import_key(bytes.fromhex(scene.bench.blob), kek, persist=persist)
        elif key is not None:
            done = provider.destroy_key(key)
            said["disposition"] = f"{done.outcome}: {'; '.join(done.evidence)}"
    except Exception as error:  # noqa: BLE001 - its type is what is judged
        said.update(outcome="failed", error=f"{type(error).__name__}: {error}", notes=getattr(error, "__notes__", []))
        said["typed"] = isinstance(error, HsmbridgeError)
    known = {found.handle for found in before}
    new = [found for found in look.objects() if found.handle not in known]
    said["key"] = None if key is None else describe(key, operation.sources[0], look)
    said["source"] = key.object.alive if isinstance(key, TokenKey) else False
    said["gone"] = sorted(known - {found.handle for found in look.objects()})
    said["new"] = [[found.on_token, found.label, found.id, found.answer] for found in new]
    link.say("done", **said)


def import_again(link: Link, scene: Scene, blob: bytes) -> None:
    """Import a blob into a session object, on the bare module: is it still good?"""
    token: Token = scene.bench.open_token(scene.bench.module)
    look = scene.look(fresh=False)
    provider = Provider(token, identity=scene.bench.identity("sender"))
    try:
        key = provider.import_key(blob, kek_of(token))
    except HsmbridgeError as error:
        link.say("import", answer="", error=str(error))
        return
    link.say("import", answer=describe(key, MOVING, look)["answer"], error="")
