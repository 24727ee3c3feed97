"""The work of wrap_unwrap.c through hsmbridge, with every check that hsmbridge makes.

    through_hsmbridge.py KEYS

The same keys, templates and protocol: for each line on stdin one JSON line of keys per second, which also names the
mechanism that hsmbridge chose. The new objects are destroyed outside the timed loops.
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec, usage_of
from hsmbridge.module import Module
from hsmbridge.unwrapping import KeyRequest, Unwrapper
from hsmbridge.wrapping import Wrapper

AES = parse_keyspec("aes:256")
KEK_USE = {**usage_of(AES), CKA.ENCRYPT: False, CKA.DECRYPT: False, CKA.WRAP: True, CKA.UNWRAP: True}
KEY_USE = {CKA.PRIVATE: True, CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, **usage_of(AES)}
REQUEST = KeyRequest(cls=CKO.SECRET_KEY, key_type=CKK.AES, template=KEY_USE)


def main() -> None:
    """Do one round for each line on stdin."""
    count = int(sys.argv[1])
    module = Module.open(os.environ["PKCS11_MODULE"], init_args=os.environ.get("PKCS11_MODULE_ARGS"))
    token = module.token(label=os.environ["PKCS11_TOKEN_LABEL"])
    token.login(os.environ["PKCS11_PIN"])
    kek = generate_key(token, AES, KEK_USE)
    keys = [generate_key(token, AES, KEY_USE) for _ in range(count)]
    wrapper, unwrapper = Wrapper(kek), Unwrapper(kek)
    for _ in sys.stdin:
        start = perf_counter()
        wraps = [wrapper.wrap(key) for key in keys]
        middle = perf_counter()
        arrived = [unwrapper.unwrap(wrap.data, REQUEST) for wrap in wraps]
        end = perf_counter()
        with Ours(token) as ours:
            for unwrapped in arrived:
                ours.adopt(unwrapped.key.handle)
        assert not ours.debris
        rates = {"wrap": count / (middle - start), "unwrap": count / (end - middle)}
        print(json.dumps({**rates, "mechanism": wraps[0].route.mechanism.number}), flush=True)
    token.close()


if __name__ == "__main__":
    main()
