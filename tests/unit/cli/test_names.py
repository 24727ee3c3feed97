"""KEY names and -a attributes: what is understood, and that nothing else ever escapes than one typed error."""

from __future__ import annotations

import pytest
from hsmbridge_cli.attributevalues import parse_attributes
from hsmbridge_cli.keynames import parse_id, parse_key_name
from hypothesis import given
from hypothesis import strategies as st

from hsmbridge.codes import CKA, CKM
from hsmbridge.errors import UsageError
from hsmbridge.template import PackedTemplate

NAMES = [kind.name for kind in CKA] + ["CKA_SIGN", "0x80000001", "sign", "0xFFFFFFFFFFFFFFFFFF", ""]


def test_the_four_forms() -> None:
    """A KEY is a URI, label:, id: or file:, and the rest belongs to the name, colons included."""
    assert parse_key_name("label:a:b").label == "a:b"
    assert parse_key_name("id:0A:1b").id == b"\x0a\x1b"
    assert parse_key_name("file:/tmp/x:y").path == "/tmp/x:y"  # noqa: S108 - a name, not a file
    uri = parse_key_name("pkcs11:token=t;object=k;type=private").uri
    assert uri is not None
    assert (uri.object, uri.type) == ("k", "private")


@pytest.mark.parametrize(
    "text",
    ["", "k", "label:", "id:", "file:", "Label:k", "id:0", "id:zz", "id:" + "00" * 256, "pkcs11:token=t",
     "pkcs11:object=k;type=cert", "pkcs11:object=k?pin-value=1", "pkcs11:object=k?module-name=m"],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    """Everything else is a usage error with a hint."""
    with pytest.raises(UsageError) as caught:
        parse_key_name(text)
    assert caught.value.hint


@given(
    st.one_of(
        st.text(), st.sampled_from(["label:", "id:", "file:", "pkcs11:"]).flatmap(lambda p: st.text().map(p.__add__))
    )
)
def test_any_text_is_a_name_or_a_usage_error(text: str) -> None:
    """No text makes the parser raise anything but a usage error, and a name keeps what was typed."""
    try:
        name = parse_key_name(text)
    except UsageError:
        return
    assert name.text == text
    assert sum(way is not None for way in (name.label, name.id, name.uri, name.path)) == 1


@given(st.binary(min_size=1, max_size=255))
def test_ids_are_read_back(value: bytes) -> None:
    """An id in hexadecimal digits is read back, with and without colons."""
    assert parse_id(value.hex()) == parse_id(value.hex(":")) == value


def test_attribute_values() -> None:
    """Values are read by the type of their attribute; names go with and without CKA_, in any case."""
    found = parse_attributes(
        ["SIGN=true", "cka_derive=no", "label=a=b", "ID=hex:0a0b", "START_DATE=2026-02-28", "0x80000001=hex:00",
         "0x80000002=17", "ALLOWED_MECHANISMS=CKM_AES_CBC,aes_gcm,0x1085"]
    )  # fmt: skip
    assert found == {
        CKA.SIGN: True,
        CKA.DERIVE: False,
        CKA.LABEL: "a=b",
        CKA.ID: b"\x0a\x0b",
        CKA.START_DATE: b"20260228",
        0x80000001: b"\x00",
        0x80000002: 17,
        CKA.ALLOWED_MECHANISMS: (CKM.AES_CBC, CKM.AES_GCM, 0x1085),
    }


@pytest.mark.parametrize(
    "item",
    ["SIGN", "SIGN=", "SIGN=2", "TOKEN=true", "VALUE=hex:00", "CLASS=4", "VALUE_LEN=32", "NOSUCH=1", "ID=hex:0",
     "START_DATE=2026-02-30", "START_DATE=tomorrow", "ALLOWED_MECHANISMS=frob", "0x80000001=text", "0x80000001=-1",
     "MODULUS=hex:01"],
)  # fmt: skip
def test_bad_attributes_are_refused(item: str) -> None:
    """An unknown name, one that is decided elsewhere, or a value that does not fit is a usage error with a hint."""
    with pytest.raises(UsageError) as caught:
        parse_attributes([item])
    assert caught.value.hint


def test_unknown_attribute_lists_the_names() -> None:
    """The hint for an unknown attribute names those that there are."""
    with pytest.raises(UsageError) as caught:
        parse_attributes(["FROB=1"])
    assert "DERIVE" in str(caught.value.hint)


def test_an_attribute_is_given_once() -> None:
    """The same attribute twice is refused, under whichever of its names."""
    with pytest.raises(UsageError):
        parse_attributes(["SIGN=true", "CKA_SIGN=true"])


@given(st.sampled_from(NAMES), st.text())
def test_any_value_packs_or_is_refused(name: str, value: str) -> None:
    """Whatever the value, it becomes an attribute that can be packed for the token, or a usage error."""
    try:
        found = parse_attributes([f"{name}={value}"])
    except UsageError:
        return
    assert PackedTemplate(found).count == 1
