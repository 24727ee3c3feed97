"""The report as a page: whole in itself, safe whatever a token calls itself, complete without its script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace

import pytest
from hsmbridge_conformance.reports import html
from hsmbridge_conformance.reports.markup import element, joined
from hsmbridge_conformance.verdict import Verdict

from tests.support.htmltext import Page
from tests.support.reports import HOSTILE, hostile_report, result, sample_report

SAMPLE, ATTACKED = Page.read(html.render(sample_report())), Page.read(html.render(hostile_report()))
BOTH = pytest.mark.parametrize("page", [SAMPLE, ATTACKED], ids=["sample", "hostile"])
CSS = "".join(SAMPLE.texts["style"])
AA_TEXT, AA_SIGN = 4.5, 3.0
"""WCAG 2.2: 1.4.3 (text), 1.4.11 (what carries a meaning and is no text)."""


@BOTH
def test_the_page_needs_nothing_else(page: Page) -> None:
    """No element names anything outside of the page, and no style does."""
    loading = {"src", "srcset", "data", "poster", "background", "formaction", "action"}
    assert not [attributes for _, attributes in page.elements if loading & attributes.keys()]
    links = {str(attributes["href"]) for _, attributes in page.elements if "href" in attributes}
    assert all(link.startswith("#") for link in links)
    assert "url(" not in CSS
    assert "@import" not in CSS
    assert not page.all("link")


@BOTH
def test_the_policy_allows_our_style_and_script_only(page: Page) -> None:
    """The policy forbids everything but the page's one style and one script, which it names by their hashes."""
    (policy,) = [
        str(meta["content"]) for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for name in ("style", "script"):
        (text,) = page.texts[name]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
        assert len(page.all(name)) == 1


@BOTH
def test_elements_are_closed_and_ids_are_unique(page: Page) -> None:
    """The page is well-formed, no fragment stands for two places, and every link leads to one."""
    assert page.unbalanced == []
    if page is SAMPLE:
        assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    links = {str(attributes["href"])[1:] for _, attributes in page.elements if "href" in attributes}
    assert links <= set(page.ids)


def test_a_label_is_text() -> None:
    """Markup, quotes, control characters and changes of direction in a label are shown and do nothing."""
    assert not ATTACKED.all("img")
    assert not [name for _, attributes in ATTACKED.elements for name in attributes if name.startswith("on")]
    assert "</script><img src=x onerror=alert(1)>\\x1b[31m\\u202e" in ATTACKED.text
    raw = html.render(hostile_report())
    assert not [char for char in raw if char != "\n" and not char.isprintable()]
    assert HOSTILE not in raw


def test_markup_escapes_by_default() -> None:
    """Text and attributes are escaped unless they are markup already; markup is not escaped twice."""
    inner = element("b", "<&>", title="\"'")
    assert joined("a<", inner) == b'a&lt;<b title="&quot;&#x27;">&lt;&amp;&gt;</b>'
    assert element("input", checked=True, hidden=False, value=None) == b"<input checked>"


def test_every_result_is_on_the_page() -> None:
    """Each result has a row, with its verdict as a word, and no row is hidden without the script."""
    report = sample_report()
    rows = [attributes for attributes in SAMPLE.all("tr") if "data-verdict" in attributes]
    assert len(rows) == len(report.results)
    assert Counter(row["data-verdict"] for row in rows) == Counter(str(one.verdict) for one in report.results)
    assert [name for name, attributes in SAMPLE.elements if "hidden" in attributes] == ["form"]


def test_evidence_is_shown() -> None:
    """What failed shows its reason and its calls unfolded, and its check's paragraph and source."""
    folds = {str(fold["id"]): "open" in fold for fold in SAMPLE.all("details") if "id" in fold}
    wrong = {one.id for one in sample_report().results if one.verdict in {"fail", "finding", "error"}}
    assert {check_id for check_id, is_open in folds.items() if is_open} == wrong
    for text in ("a key with CKA_EXTRACTABLE=false was wrapped", "C_GenerateKey", "did not return", "section 5.18.3"):
        assert text in SAMPLE.text


def test_the_module_comes_first() -> None:
    """The first heading below the title is the module's verdict, the second the toolkit's."""
    headings = re.findall(r"<h2>(.*?)</h2>", html.render(sample_report()))
    words = [re.sub(r"<[^>]+>", "", heading) for heading in headings[:2]]
    assert words == ["Module fails", "Toolkit on this module passes"]


def test_the_matrix_is_told_by_more_than_colour() -> None:
    """Each tile has a picture of its own kind and a word, and a link to its evidence."""
    text = html.render(sample_report())
    tiles = re.findall(r'<td class="tile v-(\w+)"[^>]*>(.*?)</td>', text)
    assert len(tiles) == 6 * 8
    for verdict, inner in tiles:
        assert f'href="#v-{verdict}"' in inner
        assert '<span class="hidden">' in inner
        assert ("<a " in inner) == (verdict != "untried")
    assert {verdict for verdict, _ in tiles} == {*map(str, Verdict), "untried"}
    signs = re.findall(r'<symbol id="v-(\w+)" [^>]*>(.*?)</symbol>', text)
    assert len({picture for _, picture in signs}) == len(signs) == len(Verdict) + 1


def test_without_a_matrix_there_is_a_reason() -> None:
    """Where no mechanism was tried with any type of key, a sentence says why instead of an empty table."""
    alone = result("HSB-E2E-001", "", Verdict.UNSUPPORTED, "C_WrapKey is not supported")
    text = Page.read(html.render(replace(sample_report(), results=(alone,)))).text
    assert "No mechanism was tried with any type of key: C_WrapKey is not supported." in text
    text = Page.read(html.render(replace(sample_report(), results=(result(),)))).text
    assert "were not part of this run" in text


def test_tables_can_be_heard() -> None:
    """Every table has a caption, every heading cell a scope, the page a language and one first heading."""
    assert len(SAMPLE.all("caption")) == len(SAMPLE.all("table")) > 10
    assert all(cell.get("scope") in {"row", "col"} for cell in SAMPLE.all("th"))
    assert SAMPLE.all("html")[0]["lang"] == "en"
    assert len(SAMPLE.all("h1")) == 1


def test_the_page_fits_every_reader() -> None:
    """There are styles for dark screens, narrow ones, paper, and no motion; the width is the device's."""
    for query in ("prefers-color-scheme: dark", "max-width", "print", "prefers-reduced-motion"):
        assert re.search(rf"@media[^{{]*{query}", CSS), query
    assert {"width=device-width, initial-scale=1"} == {
        str(meta["content"]) for meta in SAMPLE.all("meta") if meta.get("name") == "viewport"
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(scheme: str) -> None:
    """Text has a contrast of 4.5 to what it stands on, signs one of 3, in both colour schemes (WCAG AA)."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", blocks[0]))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#\w+);", blocks[1]))
    pairs = [(ink, ground, AA_TEXT) for ink in ("ink", "quiet", "link") for ground in ("ground", "paper")]
    for verdict in map(str, Verdict):
        pairs += [(f"{verdict}-ink", f"{verdict}-soft", AA_TEXT), (f"{verdict}-ink", "paper", AA_TEXT)]
        if verdict != Verdict.UNSUPPORTED:  # its tile has the soft ground
            pairs.append(("white", verdict, AA_SIGN))
    colours["white"] = "#fff"
    for ink, ground, least in pairs:
        assert contrast(colours[ink], colours[ground]) >= least, f"{ink} on {ground}"


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours. Source: WCAG 2.2, relative luminance."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
