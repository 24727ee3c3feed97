"""``pkcs11:`` URIs: RFC 7512's own examples, what is refused, round trips, and p11-kit as our judge."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hsmbridge.errors import UriError, UsageError
from hsmbridge.uri import MAX_URI_LENGTH, MAX_VENDOR_ATTRIBUTES, OBJECT_TYPES, Pkcs11Uri, parse_uri

if TYPE_CHECKING:
    from collections.abc import Iterator

# Typed in from RFC 7512 section 3 (Examples of PKCS #11 URIs), in its order, the line breaks removed.
RFC_EXAMPLES = [
    ("pkcs11:", Pkcs11Uri()),
    ("pkcs11:object=my-pubkey;type=public", Pkcs11Uri(object="my-pubkey", type="public")),
    (
        "pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
        Pkcs11Uri(object="my-key", type="private", pin_source="file:/etc/token"),
    ),
    (
        (
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;"
            "object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin"
        ),
        Pkcs11Uri(
            token="The Software PKCS#11 Softtoken",
            manufacturer="Snake Oil, Inc.",
            model="1.0",
            object="my-certificate",
            type="cert",
            id=bytes.fromhex("69953e5cf4bdec91"),
            serial="",
            pin_source="file:/etc/token_pin",
        ),
    ),
    (
        "pkcs11:object=my-sign-key;type=private?module-name=mypkcs11",
        Pkcs11Uri(object="my-sign-key", type="private", module_name="mypkcs11"),
    ),
    (
        "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
        Pkcs11Uri(object="my-sign-key", type="private", module_path="/mnt/libmypkcs11.so.1"),
    ),
    (
        "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin",
        Pkcs11Uri(token="Software PKCS#11 softtoken", manufacturer="Snake Oil, Inc.", pin_value="the-pin"),
    ),
    ("pkcs11:slot-description=Sun%20Metaslot", Pkcs11Uri(slot_description="Sun Metaslot")),
    (
        (
            "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;"
            "library-version=1.23"
        ),
        Pkcs11Uri(
            library_manufacturer="Snake Oil, Inc.",
            library_description="Soft Token Library",
            library_version=(1, 23),
        ),
    ),
    (
        "pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
        Pkcs11Uri(token="My token% created by Joe", library_version=(3, 0), id=bytes.fromhex("010203baddcafe040506")),
    ),
    (
        "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
        Pkcs11Uri(token="A name with a substring %;", object="my-certificate", type="cert"),
    ),
    (
        "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
        Pkcs11Uri(token="Name with a small A with acute: \u00e1", object="my-certificate", type="cert"),
    ),
    (
        (
            "pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a"
            "?pin-source=file:/etc/token_pin&vendor-bbb=value-b"
        ),
        Pkcs11Uri(
            token="my-token",
            object="my-certificate",
            type="cert",
            path_vendor=(("vendor-aaa", "value-a"),),
            pin_source="file:/etc/token_pin",
            query_vendor=(("vendor-bbb", "value-b"),),
        ),
    ),
]

REFUSED = {
    "no scheme": ("token=a", "pkcs11:"),
    "nothing": ("", "pkcs11:"),
    "another scheme": ("https://example.org/", "pkcs11:"),
    "a Kelvin sign in the scheme": ("p\u212acs11:token=a", "pkcs11:"),
    "trailing separator in the path": ("pkcs11:token=a;", "position 15"),
    "leading separator in the path": ("pkcs11:;token=a", "position 7"),
    "trailing separator in the query": ("pkcs11:?module-name=a&", "position 22"),
    "no equals sign": ("pkcs11:token", "position 7"),
    "no name": ("pkcs11:=a", "position 7"),
    "blank in a name": ("pkcs11:to ken=a", "position 7"),
    "given twice": ("pkcs11:token=a;token=a", "'token' at position 15"),
    "vendor attribute twice in the path": ("pkcs11:x-a=1;x-a=2", "'x-a' at position 13"),
    "query attribute twice": ("pkcs11:?module-path=/a&module-path=/b", "'module-path' at position 23"),
    "both PIN attributes": ("pkcs11:?pin-source=/a&pin-value=1", "both 'pin-source' and 'pin-value'"),
    "query attribute in the path": ("pkcs11:pin-value=1", "'pin-value' at position 7 belongs after"),
    "path attribute in the query": ("pkcs11:?token=a", "'token' at position 8 belongs before"),
    "lone percent sign": ("pkcs11:token=100%", "'token': bad percent escape at position 16"),
    "half an escape": ("pkcs11:token=%4", "'token': bad percent escape at position 13"),
    "an escape that is not hexadecimal": ("pkcs11:token=a%G0", "bad percent escape at position 14"),
    "an escape with other digits": ("pkcs11:token=%\u0661\u0662", "bad percent escape at position 13"),
    "blank": ("pkcs11:token=a b", "'token': character that must be percent-encoded at position 14"),
    "slash in the path": ("pkcs11:object=a/b", "position 15"),
    "letter beyond ASCII": ("pkcs11:object=\u00e1", "position 14"),
    "line end": ("pkcs11:object=a\n", "position 15"),
    "fragment": ("pkcs11:object=a#b", "position 15"),
    "bar in the path": ("pkcs11:object=a|b", "position 15"),
    "ampersand as a path separator is part of the value": ("pkcs11:slot-id=1&token=b", "'slot-id'"),
    "semicolon in the query": ("pkcs11:?module-name=a;b", "position 21"),
    "text that is not UTF-8": ("pkcs11:token=%FF", "'token' at position 7 is not UTF-8"),
    "PIN that is not UTF-8": ("pkcs11:?pin-value=1234%FF", "'pin-value' at position 8 is not UTF-8"),
    "surrogate in UTF-8": ("pkcs11:token=%ED%A0%80", "not UTF-8"),
    "unknown type": ("pkcs11:type=key", "'type'"),
    "empty type": ("pkcs11:type=", "'type'"),
    "type in capitals": ("pkcs11:type=Private", "'type'"),
    "slot that is no number": ("pkcs11:slot-id=x", "'slot-id' at position 7"),
    "empty slot": ("pkcs11:slot-id=", "'slot-id'"),
    "negative slot": ("pkcs11:slot-id=-1", "'slot-id'"),
    "slot beyond CK_ULONG": ("pkcs11:slot-id=18446744073709551616", "'slot-id'"),
    "more digits than int() takes": (f"pkcs11:slot-id={'1' * 5000}", "'slot-id'"),
    "version with three parts": ("pkcs11:library-version=1.2.3", "'library-version'"),
    "version without a minor part": ("pkcs11:library-version=1.", "'library-version'"),
    "version beyond a byte": ("pkcs11:library-version=256", "'library-version'"),
    "NUL in a path name": ("pkcs11:?module-path=/a%00b", "'module-path'"),
    "NUL in a PIN": ("pkcs11:?pin-value=1%00", "'pin-value'"),
    "too long": ("pkcs11:token=" + "a" * MAX_URI_LENGTH, str(MAX_URI_LENGTH)),
    "too long when written out": ("pkcs11:id=" + "a" * (MAX_URI_LENGTH // 3), str(MAX_URI_LENGTH)),
    "too many vendor attributes": (
        "pkcs11:?" + "&".join(["x=1"] * (MAX_VENDOR_ATTRIBUTES + 1)),
        str(MAX_VENDOR_ATTRIBUTES),
    ),
}


def _uris(text: st.SearchStrategy[str], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Pkcs11Uri]:
    """Any URI whose texts are *text* and whose other fields are *fields* or anything valid."""
    cstring = text.filter(lambda value: "\0" not in value)
    names = st.from_regex(r"x-[A-Za-z0-9_-]{1,8}", fullmatch=True)
    byte = st.integers(0, 255)
    strategies: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(
            ("token", "manufacturer", "serial", "model", "library_manufacturer", "library_description"), text
        ),
        **dict.fromkeys(("object", "slot_manufacturer", "slot_description"), text),
        **dict.fromkeys(("module_name", "module_path"), cstring),
        "library_version": st.tuples(byte, byte),
        "type": st.sampled_from(sorted(OBJECT_TYPES)),
        "id": st.binary(max_size=40),
        "slot_id": st.integers(0, 2**64 - 1),
        **fields,
    }
    optional = {name: st.none() | strategy for name, strategy in strategies.items()}
    pins = st.tuples(st.none() | cstring, st.none() | cstring).filter(lambda pair: None in pair)
    vendor = {
        "path_vendor": st.lists(st.tuples(names, text), max_size=3, unique_by=lambda pair: pair[0]).map(tuple),
        "query_vendor": st.lists(st.tuples(names, text), max_size=3).map(tuple),
    }
    vendor |= {name: strategy for name, strategy in fields.items() if name in vendor}
    return st.builds(
        lambda pair, **rest: Pkcs11Uri(pin_source=pair[0], pin_value=pair[1], **rest), pins, **(optional | vendor)
    )


ANY_URI = _uris(st.text(max_size=40))


@pytest.mark.parametrize(("text", "expected"), RFC_EXAMPLES)
def test_examples_of_the_rfc(text: str, expected: Pkcs11Uri) -> None:
    """Every example of RFC 7512 section 3 says what the RFC says it does."""
    assert parse_uri(text) == expected


@pytest.mark.parametrize(("text", "where"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text: str, where: str) -> None:
    """What the grammar does not allow is a UriError that names the place or attribute and has a hint."""
    with pytest.raises(UriError) as caught:
        parse_uri(text)
    assert where in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


@pytest.mark.parametrize("text", [text for text, _ in REFUSED.values() if "pin-value=1234" in text])
def test_errors_do_not_show_a_pin(text: str) -> None:
    """A PIN in a refused URI is neither in the message nor in an exception behind it."""
    with pytest.raises(UriError) as caught:
        parse_uri(text)
    assert "1234" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.__context__ is None


def test_all_characters_that_the_grammar_leaves_unencoded() -> None:
    """pk11-pchar and pk11-qchar stand for themselves, in each component its own set (RFC 7512 section 2.3)."""
    uri = parse_uri("pkcs11:object=-._~:[]@!$'()*+,=&?module-name=-._~:[]@!$'()*+,=/?|")
    assert uri.object == "-._~:[]@!$'()*+,=&"
    assert uri.module_name == "-._~:[]@!$'()*+,=/?|"


def test_scheme_in_capitals() -> None:
    """Schemes do not depend on case (RFC 3986 section 3.1); attribute names do."""
    assert parse_uri("PKCS11:token=a") == Pkcs11Uri(token="a")
    assert parse_uri("pkcs11:TOKEN=a") == Pkcs11Uri(path_vendor=(("TOKEN", "a"),))


def test_vendor_attributes_may_repeat_in_the_query() -> None:
    """The query may give a vendor attribute more than once, and the order is kept (RFC 7512 section 2.3)."""
    assert parse_uri("pkcs11:?x=2&y=3&x=1").query_vendor == (("x", "2"), ("y", "3"), ("x", "1"))


def test_empty_query() -> None:
    """The grammar allows a question mark with nothing behind it."""
    assert parse_uri("pkcs11:token=a?") == Pkcs11Uri(token="a")


def test_empty_is_not_absent() -> None:
    """An empty value is kept apart from a missing one and survives writing."""
    assert str(Pkcs11Uri(serial="", id=b"")) == "pkcs11:serial=;id="
    assert parse_uri("pkcs11:serial=;id=") == Pkcs11Uri(serial="", id=b"")


def test_canonical_form() -> None:
    """Attributes come in one order, hexadecimal digits are capitals, and every byte of id is percent-encoded."""
    text = "pkcs11:id=ab%0a;type=private;object=%41b/c;token=d?x-q=1&module-path=/a b&pin-source=/p"
    uri = parse_uri(text.replace("b/c", "b%2fc").replace("/a b", "/a%20b"))
    assert str(uri) == "pkcs11:token=d;object=Ab%2Fc;type=private;id=%61%62%0A?module-path=/a%20b&pin-source=/p&x-q=1"


def test_the_shell_sees_only_the_separators() -> None:
    """Of the characters that mean something to a shell, a written value holds none."""
    everything = "".join(map(chr, range(1, 128)))
    written = str(Pkcs11Uri(object=everything, module_path=everything))
    assert not set(written) & set("\"'`$!(){}[]<>|*~\\ \t\n#") - {"~"}
    assert written.count("?") == 1
    assert ";" not in written
    assert "&" not in written


def test_pin_is_not_shown() -> None:
    """The PIN is in no repr and str, and is written only when asked for."""
    uri = Pkcs11Uri(token="a", pin_value="s3cret")
    assert "s3cret" not in repr(uri) + str(uri) + f"{uri} {uri!r} {[uri]}"
    assert "redacted" in repr(uri)
    assert "redacted" not in repr(Pkcs11Uri(token="a"))
    assert uri.to_uri() == "pkcs11:token=a"
    assert uri.to_uri(include_pin=True) == "pkcs11:token=a?pin-value=s3cret"


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "key"},
        {"library_version": (1, 256)},
        {"library_version": (-1, 0)},
        {"slot_id": -1},
        {"slot_id": 2**64},
        {"pin_source": "/a", "pin_value": "1"},
        {"module_path": "/a\0b"},
        {"token": "\ud800"},
        {"path_vendor": (("a b", "1"),)},
        {"path_vendor": (("", "1"),)},
        {"path_vendor": (("token", "1"),)},
        {"query_vendor": (("pin-value", "1"),)},
        {"path_vendor": (("x", "1"), ("x", "2"))},
        {"path_vendor": tuple((f"x{n}", "") for n in range(MAX_VENDOR_ATTRIBUTES + 1))},
        {"id": bytes(MAX_URI_LENGTH // 3)},
    ],
)
def test_what_no_uri_can_say_cannot_be_built(fields: dict[str, Any]) -> None:
    """A value that would not survive writing and parsing is refused when it is made."""
    with pytest.raises(UriError) as caught:
        Pkcs11Uri(**fields)
    assert caught.value.hint


def test_uri_errors_are_usage_errors() -> None:
    """A bad URI is the caller's mistake, not damaged input."""
    assert issubclass(UriError, UsageError)


def test_values_are_values() -> None:
    """A URI can be a dictionary's key, be pickled and be replaced in part."""
    uri = Pkcs11Uri(token="a", id=b"\1")
    assert {uri: 1}[parse_uri(str(uri))] == 1
    assert pickle.loads(pickle.dumps(uri)) == uri  # noqa: S301  # made one line earlier
    assert replace(uri, object="k") == Pkcs11Uri(token="a", id=b"\1", object="k")


TOKEN = {"label": "demo", "serial": "0a1b", "manufacturer": "SoftHSM project", "model": "SoftHSM v2"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("pkcs11:", True),
        ("pkcs11:token=demo", True),
        ("pkcs11:token=demo%20%20", True),
        ("pkcs11:token=Demo", False),
        ("pkcs11:token=", False),
        ("pkcs11:token=demo;serial=0a1b;manufacturer=SoftHSM%20project;model=SoftHSM%20v2", True),
        ("pkcs11:token=demo;serial=ffff", False),
        ("pkcs11:manufacturer=SoftHSM", False),
        ("pkcs11:model=other", False),
        ("pkcs11:object=key;type=private", True),
        ("pkcs11:token=demo;x-rack=7", False),
        ("pkcs11:token=demo?x-retries=7", True),
    ],
)
def test_token_matching(text: str, matches: bool) -> None:  # noqa: FBT001  # a table's column
    """All attributes that are given must match and no others; unknown ones in the path match nothing."""
    assert parse_uri(text).matches_token(**TOKEN) is matches


def test_padding_of_the_token_does_not_count() -> None:
    """CK_TOKEN_INFO's fields are padded with blanks to their length, and match all the same."""
    padded = {name: value.ljust(32) for name, value in TOKEN.items()}
    assert parse_uri("pkcs11:token=demo;serial=0a1b").matches_token(**padded)
    assert not parse_uri("pkcs11:serial=").matches_token(**padded)
    assert parse_uri("pkcs11:serial=").matches_token(**padded | {"serial": " " * 16})


@given(ANY_URI)
def test_round_trip(uri: Pkcs11Uri) -> None:
    """Whatever can be built is written in a form that parses back to the same value, and to the same text."""
    text = uri.to_uri(include_pin=True)
    assert parse_uri(text) == uri
    assert parse_uri(text).to_uri(include_pin=True) == text
    assert parse_uri(str(uri)) == replace(uri, pin_value=None)


def _check_stable(text: str) -> None:
    """Parse *text*: either a UriError and nothing else, or a value that writing and parsing give back."""
    try:
        uri = parse_uri(text)
    except UriError:
        return
    assert parse_uri(uri.to_uri(include_pin=True)) == uri


@given(st.text() | st.text().map("pkcs11:".__add__) | st.text("token=id;?&%0aF-/\u0661 ").map("pkcs11:".__add__))
@example("pkcs11:slot-id=" + "9" * 4999)
def test_random_text(text: str) -> None:
    """Random text is parsed, and then stable, or is a UriError and nothing else."""
    _check_stable(text)


@given(ANY_URI, st.data())
def test_mutated_uris(uri: Pkcs11Uri, data: st.DataObject) -> None:
    """A valid URI with a few characters changed is parsed, and then stable, or is a UriError and nothing else."""
    text = uri.to_uri(include_pin=True)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=2)) + text[at + data.draw(st.integers(0, 3)) :]
    _check_stable(text)


JUDGE = r"""
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <p11-kit/p11-kit.h>
    #include <p11-kit/uri.h>

    static void show(const char *name, const void *data, size_t size) {
        printf(" %s=", name);
        for (size_t i = 0; i < size; i++) printf("%02x", ((const unsigned char *)data)[i]);
    }
    static void show_text(const char *name, const char *text) {
        if (text) show(name, text, strlen(text));
    }
    #define FIELD(name, field) if ((field)[0]) show(name, field, sizeof(field))
    static void show_attribute(const char *name, P11KitUri *uri, CK_ATTRIBUTE_TYPE type) {
        CK_ATTRIBUTE_PTR attribute = p11_kit_uri_get_attribute(uri, type);
        if (attribute) show(name, attribute->pValue, attribute->ulValueLen);
    }

    int main(void) {
        static char line[65536];
        while (fgets(line, sizeof line, stdin)) {
            line[strcspn(line, "\n")] = 0;
            P11KitUri *uri = p11_kit_uri_new();
            int result = p11_kit_uri_parse(line, P11_KIT_URI_FOR_ANY, uri);
            printf("result=%d", result);
            if (result == P11_KIT_URI_OK) {
                CK_TOKEN_INFO_PTR token = p11_kit_uri_get_token_info(uri);
                CK_INFO_PTR module = p11_kit_uri_get_module_info(uri);
                CK_SLOT_INFO_PTR slot = p11_kit_uri_get_slot_info(uri);
                CK_SLOT_ID slot_id = p11_kit_uri_get_slot_id(uri);
                char *written = NULL;
                FIELD("token", token->label);
                FIELD("manufacturer", token->manufacturerID);
                FIELD("serial", token->serialNumber);
                FIELD("model", token->model);
                FIELD("library_manufacturer", module->manufacturerID);
                FIELD("library_description", module->libraryDescription);
                FIELD("slot_manufacturer", slot->manufacturerID);
                FIELD("slot_description", slot->slotDescription);
                show("library_version", &module->libraryVersion, 2);
                printf(" slot_id=%016lx", slot_id);
                show_attribute("object", uri, CKA_LABEL);
                show_attribute("id", uri, CKA_ID);
                show_attribute("class", uri, CKA_CLASS);
                show_text("pin_source", p11_kit_uri_get_pin_source(uri));
                show_text("pin_value", p11_kit_uri_get_pin_value(uri));
                show_text("module_name", p11_kit_uri_get_module_name(uri));
                show_text("module_path", p11_kit_uri_get_module_path(uri));
                printf(" unrecognized=%d", p11_kit_uri_any_unrecognized(uri));
                if (p11_kit_uri_format(uri, P11_KIT_URI_FOR_ANY, &written) == P11_KIT_URI_OK)
                    show_text("written", written);
                free(written);
            }
            printf("\n");
            fflush(stdout);
            p11_kit_uri_free(uri);
        }
        return 0;
    }
"""


class Judge:
    """p11-kit's parser and writer, as a process that answers line by line."""

    def __init__(self, process: subprocess.Popen[str], stdin: IO[str], stdout: IO[str]) -> None:
        self._process = process
        self._stdin = stdin
        self._stdout = stdout

    def read(self, text: str) -> dict[str, str]:
        """Return p11-kit's reading of *text*: field names to hexadecimal values."""
        self._stdin.write(text + "\n")
        self._stdin.flush()
        return dict(word.split("=", 1) for word in self._stdout.readline().split())


@pytest.fixture(scope="module")
def p11_kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Compile and start the judge, or skip where its parts are missing."""
    headers = Path("/usr/include/p11-kit-1")
    compiler = shutil.which("cc")
    if compiler is None or not (headers / "p11-kit/uri.h").exists():
        pytest.skip("no C compiler or no p11-kit headers (apt: gcc libp11-kit-dev)")
    folder = tmp_path_factory.mktemp("p11-kit")
    (folder / "judge.c").write_text(textwrap.dedent(JUDGE))
    source, program = str(folder / "judge.c"), str(folder / "judge")
    subprocess.run([compiler, f"-I{headers}", "-o", program, source, "-lp11-kit"], check=True, timeout=120)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Judge(process, process.stdin, process.stdout)
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def _field(value: str | None, size: int) -> str | None:
    """Return a fixed-length, blank-padded field as the judge prints it."""
    return None if value is None else value.encode().ljust(size).hex()


def _hex(value: str | None) -> str | None:
    return None if value is None else value.encode().hex()


def _fits(size: int) -> st.SearchStrategy[str]:
    """Text that fits a field of *size* bytes; p11-kit takes a field that starts with NUL for absent."""
    letters = st.characters(codec="utf-8", exclude_characters="\0")
    fitting = st.text(letters, max_size=size).filter(lambda text: len(text.encode()) <= size)
    return fitting.map(lambda text: text.rstrip(" "))


# No capitals: the grammar allows them in a vendor's names, p11-kit 0.24.1 says P11_KIT_URI_UNEXPECTED to them.
LOWER_NAME = st.from_regex(r"x-[a-z0-9_-]{1,8}", fullmatch=True)
CSTRING = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
# CK_TOKEN_INFO, CK_INFO and CK_SLOT_INFO: the fields' sizes. p11-kit takes 255.255 and the last slot for "not given".
JUDGED_URI = _uris(
    CSTRING,
    token=_fits(32),
    manufacturer=_fits(32),
    serial=_fits(16),
    model=_fits(16),
    library_manufacturer=_fits(32),
    library_description=_fits(32),
    library_version=st.tuples(st.integers(0, 254), st.integers(0, 254)),
    slot_manufacturer=_fits(32),
    slot_description=_fits(64),
    slot_id=st.integers(0, 2**64 - 2),
    query_vendor=st.lists(st.tuples(LOWER_NAME, CSTRING), max_size=3).map(tuple),
)
# CKO_ numbers: PKCS#11 v3.1 section 4.4, in the pkcs11t.h header.
CLASSES = {"data": 0, "cert": 1, "public": 2, "private": 3, "secret-key": 4}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(uri=JUDGED_URI)
def test_p11_kit_reads_what_we_write(p11_kit: Judge, uri: Pkcs11Uri) -> None:
    """p11-kit reads our output as the same fields, and what p11-kit writes, we read as the same URI."""
    read = p11_kit.read(uri.to_uri(include_pin=True))
    written = bytes.fromhex(read.pop("written")).decode()
    expected = {
        "result": "0",
        "token": _field(uri.token, 32),
        "manufacturer": _field(uri.manufacturer, 32),
        "serial": _field(uri.serial, 16),
        "model": _field(uri.model, 16),
        "library_manufacturer": _field(uri.library_manufacturer, 32),
        "library_description": _field(uri.library_description, 32),
        "library_version": bytes(uri.library_version or (255, 255)).hex(),
        "slot_manufacturer": _field(uri.slot_manufacturer, 32),
        "slot_description": _field(uri.slot_description, 64),
        "slot_id": f"{2**64 - 1 if uri.slot_id is None else uri.slot_id:016x}",
        "object": _hex(uri.object),
        "id": None if uri.id is None else uri.id.hex(),
        "class": None if uri.type is None else CLASSES[uri.type].to_bytes(8, "little").hex(),
        "pin_source": _hex(uri.pin_source),
        "pin_value": _hex(uri.pin_value),
        "module_name": _hex(uri.module_name),
        "module_path": _hex(uri.module_path),
        "unrecognized": str(int(bool(uri.path_vendor))),
    }
    assert read == {name: value for name, value in expected.items() if value is not None}
    theirs = parse_uri(written)
    assert sorted(theirs.query_vendor) == sorted(uri.query_vendor)
    assert replace(theirs, query_vendor=()) == replace(uri, query_vendor=(), path_vendor=())


@pytest.mark.parametrize("text", [text for text, _ in RFC_EXAMPLES])
def test_p11_kit_agrees_on_the_examples(p11_kit: Judge, text: str) -> None:
    """p11-kit reads the RFC's examples and our rewriting of them alike."""
    assert p11_kit.read(text) == p11_kit.read(parse_uri(text).to_uri(include_pin=True))


@pytest.mark.parametrize("case", ["lone percent sign", "an escape that is not hexadecimal", "no equals sign"])
def test_p11_kit_refuses_too(p11_kit: Judge, case: str) -> None:
    """What is malformed for us is malformed for p11-kit: the judge does judge."""
    assert p11_kit.read(REFUSED[case][0])["result"] != "0"
