"""A record key as a key: what it refuses, when it ends, how it counts, and where its records stand.

That its records are TLS's is judged in test_tls_openssl.py and test_tls_vectors.py.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hsmbridge_csp.algids import alg_id_of
from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.errors import NTE, BadKeyError, BadLengthError, CspError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.params import get_param, set_param
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.tls import AlertDescription, CipherSuite, ContentType, TlsAlertError, TlsRecordKey, TlsRecordState
from hsmbridge_csp.tls.suites import LAST_SEQUENCE, Bulk, TlsVersion
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

SEAL, OPEN = Direction.ENCRYPT, Direction.DECRYPT
SUITES = [
    CipherSuite.TLS_AES_128_GCM_SHA256,
    CipherSuite.TLS_CHACHA20_POLY1305_SHA256,
    CipherSuite.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite.TLS_RSA_WITH_AES_128_CBC_SHA,
    CipherSuite.TLS_RSA_WITH_AES_256_CBC_SHA256,
]
GCM_13 = CipherSuite.TLS_AES_128_GCM_SHA256
DATA = ContentType.APPLICATION_DATA
every_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)


def key_of(suite: CipherSuite, direction: Direction, *, sequence: int = 0, limit: int | None = None) -> TlsRecordKey:
    """Make a key of counting bytes, in TLS 1.3 without a traffic secret."""
    form = suite.form
    state = TlsRecordState(
        suite=suite,
        direction=direction,
        iv=bytes(range(form.iv_size)),
        sequence=sequence,
        limit=limit,
        encrypt_then_mac=form.bulk is Bulk.AES_CBC,
    )
    return TlsRecordKey(bytearray(range(form.value_sizes[0])), state)


@every_suite
@given(data=st.binary(max_size=300), sequence=st.integers(min_value=0, max_value=1 << 24))
def test_what_is_sealed_opens(suite: CipherSuite, data: bytes, sequence: int) -> None:
    """Any data at any sequence, and the sizes are as foretold."""
    sequence = min(sequence, suite.form.limit - 2)
    sealer, opener = (key_of(suite, direction, sequence=sequence) for direction in (SEAL, OPEN))
    record = sealer.seal(DATA, data)
    assert len(record) == sealer.record_size(len(data))
    assert opener.open(record) == (DATA, data)
    assert (sealer.sequence, opener.sequence) == (sequence + 1, sequence + 1)


@every_suite
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_records_in_place(suite: CipherSuite, kind: type[bytearray | memoryview]) -> None:
    """A larger buffer, used again and again for records of changing sizes and types, leaves nothing of the last one."""
    sealer, opener = key_of(suite, SEAL), key_of(suite, OPEN)
    memory = bytearray(20_000)
    room = memory if kind is bytearray else memoryview(memory)
    start = sealer.prefix
    for number, size in enumerate((16_384, 16_384, 5, 5, 16_384, 0, 16_384)):
        data = secrets.token_bytes(size)
        sort = ContentType.HANDSHAKE if size == 5 else DATA
        memory[start : start + size] = data
        length = sealer.seal_into(room, size, sort)
        assert length == sealer.record_size(size)
        assert data == b"" or size == 5 or data not in memory
        assert opener.open_from(room, length) == (sort, size)
        assert memory[start : start + size] == data
        assert sealer.sequence == opener.sequence == number + 1


@every_suite
def test_a_bytearray_is_let_go(suite: CipherSuite) -> None:
    """After each record, also after one that does not open, a bytearray may be resized."""
    sealer, opener = key_of(suite, SEAL), key_of(suite, OPEN)
    room = bytearray(100)
    size = sealer.seal_into(room, 10)
    room.append(0)
    room[size - 1] ^= 1
    with pytest.raises(TlsAlertError) as refused:
        opener.open_from(room, size)
    room.append(0)
    assert refused.value.alert is AlertDescription.BAD_RECORD_MAC


@every_suite
def test_what_does_not_open_is_overwritten(suite: CipherSuite) -> None:
    """No byte of an unauthentic record's text stays in the buffer, whatever a library has already decrypted."""
    sealer, opener = key_of(suite, SEAL), key_of(suite, OPEN)
    room = bytearray(sealer.seal(DATA, b"secret" * 20))
    room[-1] ^= 1
    with pytest.raises(TlsAlertError):
        opener.open_from(room, len(room))
    assert not any(room[opener.prefix :])


@every_suite
def test_every_flipped_bit_is_found(suite: CipherSuite) -> None:
    """Whatever bit of a record is another, it does not open, and the key is dead afterwards."""
    record = key_of(suite, SEAL).seal(DATA, b"text")
    for bit in range(8 * len(record)):
        opener = key_of(suite, OPEN)
        bad = bytearray(record)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TlsAlertError) as refused:
            opener.open(bad)
        assert refused.value.nte == NTE.BAD_DATA
        assert opener.failure is refused.value.alert
        if bit >= 8 * 5:
            assert opener.failure is AlertDescription.BAD_RECORD_MAC
        with pytest.raises(KeyStateError, match="has failed"):
            opener.open(record)


@every_suite
@given(junk=st.binary(max_size=60), declared=st.booleans())
def test_junk_raises_one_error(suite: CipherSuite, junk: bytes, *, declared: bool) -> None:
    """Random bytes, with or without a header that fits them, raise TlsAlertError and nothing else."""
    record = b"\x17\x03\x03" + len(junk).to_bytes(2, "big") + junk if declared else junk
    with pytest.raises(TlsAlertError):
        key_of(suite, OPEN).open(record)


@every_suite
def test_truncated_records(suite: CipherSuite) -> None:
    """A record that ends early is not decoded: there is no whole record."""
    record = key_of(suite, SEAL).seal(DATA, b"text")
    for size in range(len(record)):
        for room in (bytearray(record[:size]), bytearray(record)):
            opener = key_of(suite, OPEN)
            with pytest.raises(TlsAlertError) as refused:
                opener.open_from(room, size)
            assert refused.value.alert is AlertDescription.DECODE_ERROR
    with pytest.raises(TlsAlertError) as refused:
        key_of(suite, OPEN).open_from(bytearray(record), len(record) + 1)
    assert refused.value.alert is AlertDescription.DECODE_ERROR


@every_suite
def test_a_refused_fragment_costs_no_nonce(suite: CipherSuite) -> None:
    """What cannot be sealed leaves the key as it was."""
    sealer = key_of(suite, SEAL)
    refusals: list[Callable[[], object]] = [
        lambda: sealer.seal(DATA, bytes(16_385)),
        lambda: sealer.seal(ContentType.HANDSHAKE, b""),
        lambda: sealer.seal(ContentType.ALERT, b""),
        lambda: sealer.seal(99, b"x"),
        lambda: sealer.seal(0, b"x"),
        lambda: sealer.seal_into(bytearray(sealer.record_size(10) - 1), 10),
        lambda: sealer.seal_into(bytearray(100), -1),
    ]
    for refused in refusals:
        with pytest.raises(CspError) as error:
            refused()
        assert error.value.nte in (NTE.BAD_LEN, NTE.BAD_TYPE)
    assert sealer.seal(DATA, b"first") == key_of(suite, SEAL).seal(DATA, b"first") or suite.form.bulk is Bulk.AES_CBC
    assert sealer.sequence == 1


def test_change_cipher_spec_is_of_tls12_only() -> None:
    """TLS 1.3 never protects one."""
    with pytest.raises(CspError, match="20 is no type"):
        key_of(GCM_13, SEAL).seal(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
    suite = SUITES[2]
    record = key_of(suite, SEAL).seal(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
    assert key_of(suite, OPEN).open(record) == (ContentType.CHANGE_CIPHER_SPEC, b"\x01")


def test_padding_that_an_authentic_peer_got_wrong() -> None:
    """Under encrypt-then-MAC bad CBC padding comes from the peer itself; it is answered like a bad MAC."""
    suite = CipherSuite.TLS_RSA_WITH_AES_128_CBC_SHA
    opener = key_of(suite, OPEN)
    with pytest.raises(TlsAlertError) as refused:
        opener.open(authentic_cbc(opener, b"fifteen bytes.." + b"\x03"))
    assert refused.value.alert is AlertDescription.BAD_RECORD_MAC
    opener = key_of(suite, OPEN)
    with pytest.raises(TlsAlertError) as refused:
        opener.open(authentic_cbc(opener, b"longer than all." * 2 + b"\xff" * 16))
    assert refused.value.alert is AlertDescription.BAD_RECORD_MAC
    opener = key_of(suite, OPEN)  # RFC 5246 6.2.3.2: up to 255 bytes of padding
    assert opener.open(authentic_cbc(opener, b"\xff" * 256)) == (DATA, b"")


def authentic_cbc(key: TlsRecordKey, padded: bytes) -> bytes:
    """Encrypt and MAC what already has its padding, by `cryptography` and `hmac` alone (RFC 7366)."""
    import hmac  # noqa: PLC0415 - the judge's own means

    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    iv = secrets.token_bytes(16)
    encryptor = Cipher(algorithms.AES(bytes(key.value[:16])), modes.CBC(iv)).encryptor()
    body = iv + encryptor.update(padded)
    covered = key.sequence.to_bytes(8, "big") + b"\x17\x03\x03" + len(body).to_bytes(2, "big") + body
    mac = hmac.digest(bytes(key.value[16:]), covered, "sha1")
    return b"\x17\x03\x03" + (len(body) + len(mac)).to_bytes(2, "big") + body + mac


@every_suite
def test_limits(suite: CipherSuite) -> None:
    """A sealing key stops at the algorithm's limit; a new one goes on only after an update, never around the end."""
    limit = suite.form.limit
    assert limit == (LAST_SEQUENCE if suite.form.bulk is Bulk.CHACHA20_POLY1305 else 23_726_566)
    sealer = key_of(suite, SEAL, sequence=limit - 1)
    assert sealer.remaining == 1
    sealer.seal(DATA, b"the last")
    assert (sealer.sequence, sealer.remaining) == (limit, 0)
    for _ in range(2):
        with pytest.raises(KeyStateError, match="its limit"):
            sealer.seal(DATA, b"one too many")
    with pytest.raises(KeyStateError, match="at most"):
        key_of(suite, SEAL, limit=limit + 1)
    with pytest.raises(KeyStateError, match="at most"):
        key_of(suite, SEAL, sequence=limit + 1)


@every_suite
def test_sequence_numbers_never_wrap(suite: CipherSuite) -> None:
    """An opening key, which has no limit but these, ends at the last of them; so may one with a lower limit."""
    record = key_of(CipherSuite(suite), SEAL).seal(DATA, b"x")
    opener = key_of(suite, OPEN, sequence=LAST_SEQUENCE)
    with pytest.raises(KeyStateError, match="its limit"):
        opener.open(record)
    opener = key_of(suite, OPEN, limit=1)
    opener.open(record)
    with pytest.raises(KeyStateError, match="its limit"):
        opener.open(record)


def test_a_key_without_its_secret_is_not_updated() -> None:
    """KeyUpdate needs the traffic secret; TLS 1.2 has no such thing."""
    for suite in SUITES:
        with pytest.raises(KeyStateError, match="no traffic secret"):
            key_of(suite, SEAL).update()


def test_an_update_makes_room() -> None:
    """A key that is used up goes on after its update, from 0, and nothing of the old secret is kept."""
    key = TlsRecordKey.from_traffic_secret(GCM_13, SEAL, bytearray(range(32)), sequence=23_726_566)
    before = bytes(key.value)
    with pytest.raises(KeyStateError):
        key.seal(DATA, b"x")
    key.update()
    key.seal(DATA, b"x")
    assert key.sequence == 1
    assert before[:16] not in key.value
    assert before[16:] not in key.value


def test_a_secret_that_is_not_the_keys() -> None:
    """A traffic secret that does not give key and IV is refused: the first KeyUpdate would break the connection."""
    good = TlsRecordKey.from_traffic_secret(GCM_13, SEAL, bytearray(range(32)))
    TlsRecordKey(bytearray(good.value), good.state)
    for value, state in (
        (good.value[:16] + bytes(32), good.state),
        (bytes(16) + good.value[16:], good.state),
        (good.value, replace(good.state, iv=bytes(12))),
    ):
        with pytest.raises(KeyStateError, match="not those of the traffic secret"):
            TlsRecordKey(bytearray(value), state)


def test_a_given_secret_is_overwritten() -> None:
    """The caller's traffic secret is gone once the key has it."""
    secret = bytearray(range(32))
    key = TlsRecordKey.from_traffic_secret(GCM_13, SEAL, secret)
    assert not any(secret)
    assert key.has_secret
    with pytest.raises(BadLengthError):
        TlsRecordKey.from_traffic_secret(GCM_13, SEAL, bytearray(48))
    with pytest.raises(BadLengthError):
        TlsRecordKey.from_traffic_secret(SUITES[2], SEAL, bytearray(48))


@every_suite
def test_the_key_is_as_long_as_the_suite_says(suite: CipherSuite) -> None:
    """Bulk key, MAC key and secret, not a byte more or less."""
    state = key_of(suite, SEAL).state
    sizes = suite.form.value_sizes
    for size in range(max(sizes) + 40):
        if size not in sizes:
            with pytest.raises(BadLengthError):
                TlsRecordKey(bytearray(size), state)


@every_suite
def test_directions_and_permissions(suite: CipherSuite) -> None:
    """A key seals or opens, not both, and only with the permission, which may be given up on the way."""
    sealer, opener = key_of(suite, SEAL), key_of(suite, OPEN)
    record = sealer.seal(DATA, b"text")
    with pytest.raises(KeyStateError, match="there to encrypt"):
        sealer.open(record)
    with pytest.raises(KeyStateError, match="there to decrypt"):
        opener.seal(DATA, b"text")
    opener.open(record)
    for key, gone in ((sealer, Permission.ENCRYPT), (opener, Permission.DECRYPT)):
        set_param(key, 6, int(DEFAULT & ~gone))
        assert get_param(key, 6) == DEFAULT & ~gone
        with pytest.raises(PermissionDeniedError):
            (sealer.seal(DATA, b"x") if key is sealer else opener.open(record))


@every_suite
def test_frozen_thawed_destroyed(suite: CipherSuite) -> None:
    """A key stops when it is frozen, goes on when thawed, and holds nothing when destroyed."""
    key = key_of(suite, SEAL)
    key.seal(DATA, b"one")
    key.freeze()
    with pytest.raises(KeyStateError, match="frozen"):
        key.seal(DATA, b"two")
    key.thaw()
    key.seal(DATA, b"two")
    assert key.sequence == 2
    value = key.value
    assert Provider().destroy_key(key).outcome is Outcome.DESTROYED
    assert not any(value)
    with pytest.raises(BadKeyError):
        key.seal(DATA, b"three")
    with pytest.raises(BadKeyError):
        key.update()


@every_suite
def test_duplicates(suite: CipherSuite) -> None:
    """An opening key can be duplicated, and nothing is shared; a sealing one cannot."""
    sealer, opener = key_of(suite, SEAL), key_of(suite, OPEN)
    with pytest.raises(KeyStateError, match="cannot be duplicated"):
        sealer.duplicate()
    assert sealer.can_only_move
    copy = opener.duplicate()
    record = sealer.seal(DATA, b"text")
    copy.open(record)
    Provider().destroy_key(copy)
    assert opener.sequence == 0
    assert opener.open(record) == (DATA, b"text")


def test_a_failed_key_is_not_exported() -> None:
    """What its peer has ended does not come back to life elsewhere."""
    key = key_of(GCM_13, OPEN)
    with pytest.raises(TlsAlertError):
        key.open(bytes(5))
    with pytest.raises(KeyStateError, match="has failed"):
        key.check_usable(Permission.EXPORT)
    with pytest.raises(KeyStateError, match="has failed"):
        key.duplicate()


def test_what_others_see_of_it() -> None:
    """CryptoAPI's number is CALG_SCHANNEL_ENC_KEY, and no secret is in a repr or an error."""
    key = key_of(SUITES[5], SEAL)
    assert alg_id_of(key.algorithm, key.bits) == AlgId.SCHANNEL_ENC_KEY
    assert (key.suite, key.version, key.direction) == (SUITES[5], TlsVersion.TLS12, SEAL)
    assert bytes(key.value).hex() not in repr(key)
