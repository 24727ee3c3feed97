"""`hsmbridge conformance`: runs on a real token, their reports, and what happens where no run can begin."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from hsmbridge_conformance import pytest_plugin
from hsmbridge_conformance.catalogue import all_checks
from hsmbridge_conformance.reports.as_json import parse, render
from hsmbridge_conformance.runner import Options

from tests.cli.conftest import ROOT
from tests.cli.test_terminal import in_terminal
from tests.support.htmltext import Page
from tests.support.reports import sample_report
from tests.support.schema import complaints

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Result

SCHEMA = json.loads((ROOT / "docs" / "conformance" / "report.schema.json").read_text("utf-8"))
RUN = ("conformance", "run")
QUICK = (*RUN, "--only", "WRAP-001", "--only", "HSB-WRAP-004")
FAILED = {"fail", "error"}


@pytest.fixture
def own(fresh: Cli) -> Cli:
    """The command on a token of this test alone, with notes of runs in its own directory."""
    return fresh.having(XDG_STATE_HOME=str(fresh.directory / "state"))


def pin_file(cli: Cli, pin: str) -> Path:
    """Write a PIN file that only its owner can read."""
    path = cli.directory / "pin"
    path.touch(mode=0o600)
    path.write_text(pin)
    return path


def test_a_run(own: Cli) -> None:
    """A run judges every check of the catalogue once or more; the exit code says what its document says.

    The document follows the published schema, the token is what it was, and no note of the run is left.
    """
    before = own.inventory()
    done = own(*RUN, "--level", "must", "--json", status=None)
    document = done.document
    assert complaints(SCHEMA, document) == []
    assert done.status == (0 if document["summary"]["ok"] else 1)
    assert {check["id"] for check in document["checks"]} == {entry.id for entry in MUSTS}
    assert document["token"]["label"] == own.variables["PKCS11_TOKEN_LABEL"]
    assert document["problems"] == []
    assert own.inventory() == before
    assert list((own.directory / "state" / "hsmbridge" / "conformance").iterdir()) == []
    assert own.variables["PKCS11_PIN"] not in done.text + done.err


MUSTS = [entry for entry in all_checks() if entry.level == "must" and not entry.scratch]


def test_the_summary_is_text(own: Cli) -> None:
    """Without --json the module stands first, what failed has its evidence, and the last line is the verdict.

    There is no colour where no terminal is.
    """
    done = own(*QUICK)
    lines = done.text.splitlines()
    words = [line.split()[:2] for line in lines if line.startswith(("module ", "toolkit "))]
    assert words == [["module", "passes"], ["toolkit", "not"]]
    assert lines[-1] == "ok"
    assert "\x1b" not in done.text + done.err


def test_what_failed_is_told_with_its_calls(own: Cli) -> None:
    """A failed check is told with its level, its reason and calls, and makes the run fail with 1."""
    document = own.json(*RUN, "--only", "KAT", "--only", "UNWRAP-004", status=1)
    failed = [check for check in document["checks"] if check["verdict"] in FAILED]
    assert failed
    told = own(*RUN, "--only", "KAT", "--only", "UNWRAP-004", status=1).text
    for check in failed:
        section = f"\nfail    {check['id']}  ({check['level']})\n        {check['reason']}\n"
        assert section in told
        following = told.split(section, 1)[1].split("\n\n", 1)[0]
        assert check["parameter"] in following
        assert " -> CKR_" in following
    assert told.splitlines()[-1].startswith("failed: ")


def test_reports_are_files(own: Cli) -> None:
    """Each --report makes a file of its kind, of mode 600; all have the same results."""
    names = {"html": "r.html", "junit": "r.xml", "md": "r.md", "json": "r.json"}
    own(*QUICK, *(part for kind, name in names.items() for part in ("--report", f"{kind}:{name}")))
    report = parse((own.directory / "r.json").read_bytes(), "r.json")
    expected = [result.name for result in report.results]
    assert len(expected) >= 2
    cases = ET.parse(own.directory / "r.xml").getroot().iter("testcase")  # noqa: S314 - our own document
    assert [case.get("name") for case in cases] == [*expected, "run"]
    rows = [row for row in Page.read((own.directory / "r.html").read_text("utf-8")).all("tr") if "data-verdict" in row]
    assert len(rows) == len(expected)
    assert "**Module passes**" in (own.directory / "r.md").read_text("utf-8")
    for name in names.values():
        assert (own.directory / name).stat().st_mode & 0o777 == 0o600


def test_reports_are_not_replaced(own: Cli) -> None:
    """A report that is there ends the command before the PIN is tried; --force replaces it."""
    (own.directory / "r.md").write_text("mine")
    wrong = own.having(PKCS11_PIN="wrong")
    assert "r.md is there already" in wrong(*QUICK, "--report", "md:r.md", status=2).err
    assert (own.directory / "r.md").read_text() == "mine"
    own(*QUICK, "--report", "md:r.md", "--force")
    assert (own.directory / "r.md").read_text().startswith("## hsmbridge conformance")


def test_a_report_on_standard_output(own: Cli) -> None:
    """`--report md:-` prints the report instead of the summary, for a job's summary page."""
    done = own(*QUICK, "--report", "md:-")
    assert done.text.startswith("## hsmbridge conformance")
    assert "\nok\n" not in done.text


def test_reports_survive_a_reader_that_goes_away(own: Cli) -> None:
    """The files are written before anything is printed: `| head` costs no report."""
    command = shlex.join([str(Path(sys.executable).with_name("hsmbridge")), *QUICK, "--report", "json:r.json"])
    subprocess.run(
        ["bash", "-c", f"{command} | true"], cwd=own.directory, env=dict(own.variables), check=True, timeout=60
    )
    assert parse((own.directory / "r.json").read_bytes(), "r.json").results


def waivers_for(document: dict[str, Any]) -> str:
    """Write a file of waivers that names whatever is not a pass."""
    return "".join(
        f"{check['id']} {check['parameter'] or '-'} {check['verdict']} seen in the run before\n"
        for check in document["checks"]
        if check["verdict"] != "pass"
    )


def test_waivers_and_expected_results(own: Cli) -> None:
    """A file that names all that is not a pass makes a failed run a good one; a line too few or too many does not."""
    chosen = (*RUN, "--only", "KAT", "--only", "WRAP-001")
    lines = waivers_for(own.json(*chosen, status=1))
    known = own.directory / "known.txt"
    known.write_text(f"# what is known\n\n{lines}HSB-DESTROY-001 - fail it is not run here\n")
    document = own.json(*chosen, "--waivers", known, "--exact")
    assert {check["waiver"] for check in document["checks"]} == {"", "seen in the run before"}
    assert not {check["verdict"] for check in document["checks"]} & (FAILED | {"finding"})
    assert "seen in the run before" in own(*chosen, "--waivers", known, "--exact").text

    known.write_text(f"{lines}HSB-WRAP-001 * fail it once wrapped\n")
    assert "its checks say pass; take the line out" in own(*chosen, "--waivers", known, status=1).text

    unsupported = next(line for line in lines.splitlines(keepends=True) if " unsupported " in line)
    known.write_text(lines.replace(unsupported, ""))
    own(*chosen, "--waivers", known)
    assert "which no line of the waivers expects" in own(*chosen, "--waivers", known, "--exact", status=1).text


@pytest.mark.parametrize("content", [b"HSB-WRAP-001 fails\n", b"\xff\n", b"HSB-WRAP-001 - pass it does\n", None])
def test_bad_waivers(own: Cli, content: bytes | None) -> None:
    """A file of waivers that cannot be read ends with 3 before the PIN is tried, and says which line."""
    if content is not None:
        (own.directory / "known.txt").write_bytes(content)
    done = own.having(PKCS11_PIN="wrong")(*QUICK, "--waivers", "known.txt", status=3)
    assert "known.txt" in done.err
    assert done.hint


def spied(cli: Cli) -> tuple[Cli, Path]:
    """Put OpenSC's pkcs11-spy between the command and the module, and return its log too."""
    found = [
        path for pattern in ("*/pkcs11-spy.so", "*/pkcs11/pkcs11-spy.so") for path in Path("/usr/lib").glob(pattern)
    ]
    if not found:
        pytest.skip("pkcs11-spy.so is not installed (Debian package opensc)")
    log = cli.directory / "spy.log"
    module = cli.variables["PKCS11_MODULE"]
    return cli.having(PKCS11_MODULE=str(found[0]), PKCS11SPY=module, PKCS11SPY_OUTPUT=str(log)), log


def logins(log: Path) -> int:
    """Count the calls of C_Login in a log of pkcs11-spy."""
    return log.read_text("utf-8", "replace").count(": C_Login\n")


def test_a_wrong_pin_is_tried_once(own: Cli) -> None:
    """A wrong PIN is one C_Login and exit code 5; the next run refuses to try any, and one right login mends that.

    The calls are counted by pkcs11-spy.
    """
    watched, log = spied(own)
    right = pin_file(own, own.variables["PKCS11_PIN"])
    done = watched.having(PKCS11_PIN="wrong-pin")(*RUN, status=5)
    assert "CKR_PIN_INCORRECT" in done.err
    assert "wrong-pin" not in done.err
    assert logins(log) == 1
    assert "the last PIN for token" in watched(*QUICK, "--pin-file", right, status=5).err
    assert logins(log) == 1
    own("key", "ls")
    own(*QUICK, "--pin-file", right)


def test_no_run_without_a_token(own: Cli) -> None:
    """No module, no PKCS#11 library, no such token, no PIN: exit code 5, an error and a hint, no report."""
    (own.directory / "text.so").write_text("no library")
    empty = own.without("PKCS11_MODULE", "PKCS11_PIN")
    for variables, arguments, words in (
        (empty, (), "no PKCS#11 module is named"),
        (own, ("--module", "/nonexistent.so"), "/nonexistent.so"),
        (own, ("--module", "./text.so"), "text.so"),
        (own, ("--module", "libc.so.6"), "libc.so.6"),
        (own, ("--token-label", "nobody's"), "nobody's"),
        (own.without("PKCS11_PIN"), (), "no PIN is given"),
    ):
        done: Result = variables(*QUICK, "--report", "json:r.json", *arguments, status=5)
        assert words in done.err
        assert done.hint
        assert done.out == b""
        assert not (own.directory / "r.json").exists()


def test_a_uri_names_the_token(own: Cli) -> None:
    """--uri with token, module-path and pin-source is enough for a run."""
    path = pin_file(own, own.variables["PKCS11_PIN"])
    module, label = own.variables["PKCS11_MODULE"], own.variables["PKCS11_TOKEN_LABEL"]
    plain = own.without("PKCS11_MODULE", "PKCS11_TOKEN_LABEL", "PKCS11_PIN")
    uri = f"pkcs11:token={label}?module-path={module}&pin-source={path}"
    assert plain(*QUICK, "--uri", uri).text.endswith("ok\n")


def test_verbose_tells_each_result(own: Cli) -> None:
    """With -v every result is told on standard error as it comes."""
    done = own(*QUICK, "-v", "--json")
    told = [line for line in done.err.splitlines() if line.startswith("hsmbridge: info: HSB-WRAP-")]
    assert len(told) == len(done.document["checks"])


def test_progress_in_a_terminal(own: Cli) -> None:
    """In a terminal a bar says how many checks are done, and of which chapter; the verdict has a colour."""
    status, shown = in_terminal(own, *RUN, "--only", "WRAP", "--only", "SEP", "--level", "must")
    assert status in {0, 1}
    chosen = Options(only=("HSB-WRAP", "HSB-SEP"), level=MUSTS[0].level).chosen()
    assert f"/{len(chosen)}".encode() in shown
    assert b"Separation" in shown
    assert b"\x1b[3" in shown


def test_clean_removes_what_a_run_left(own: Cli) -> None:
    """`clean` removes the object that bears a noted run's CKA_ID, and no other; then the note is gone."""
    mark, prefix = own.directory / "state" / "hsmbridge" / "conformance", os.urandom(10).hex()
    left = own.put_key(bytes(32), ID=f"hex:{prefix}{os.urandom(6).hex()}")
    foreign = own.put_key(bytes(32))
    assert own("conformance", "clean").text.startswith("nothing to remove")
    own(*QUICK)  # makes the directory of the notes
    serial = own.json("token", "show")["token"]["serial"]
    (mark / prefix).write_text(serial)
    document = own.json("conformance", "clean")
    assert (len(document["removed"]), document["kept"]) == (1, [])
    assert left in document["removed"][0]
    labels = {key["label"] for key in own.json("key", "ls")["keys"]}
    assert (left in labels, foreign in labels) == (False, True)
    assert list(mark.iterdir()) == []


def test_list_and_explain(plain: Cli) -> None:
    """`list` has every check of the catalogue, `explain` its title, paragraph and clauses; neither needs a token."""
    listed = plain.json("conformance", "list")
    assert [check["id"] for check in listed["checks"]] == [entry.id for entry in all_checks()]
    shown = plain("conformance", "list").text
    for check in listed["checks"]:
        assert f"{check['id']} " in shown
        assert check["clauses"]
        assert check["text"]
    explained = plain.json("conformance", "explain", "wrap-001")
    assert explained == {"schema": "hsmbridge.conformance.explain/1", **listed["checks"][0]}
    text = plain("conformance", "explain", "HSB-WRAP-001").text
    for part in (explained["title"], *explained["clauses"], "must", "module"):
        assert part in text
    assert " ".join(explained["text"].split()) in " ".join(text.split())


def test_diff(plain: Cli) -> None:
    """`diff` ends with 0 if nothing got worse and with 1 if something did, which it names."""
    old = json.loads(render(sample_report()))
    (plain.directory / "old.json").write_text(json.dumps(old))
    assert plain("conformance", "diff", "old.json", "old.json").text == f"ok: {len(old['checks'])} unchanged\n"
    old["checks"][0].update(verdict="fail", reason="it \x1b[31mwrapped")
    old["token"]["firmware"] = "2.7"
    (plain.directory / "new.json").write_text(json.dumps(old))
    done = plain("conformance", "diff", "old.json", "new.json", status=1)
    assert done.text.splitlines()[0] == "token firmware: 2.6 before, 2.7 now"
    assert f"regression   {old['checks'][0]['id']}  pass -> fail\n             it \\x1b[31mwrapped\n" in done.text
    assert done.text.splitlines()[-1] == f"failed: 1 regression, {len(old['checks']) - 1} unchanged"
    document = plain.json("conformance", "diff", "old.json", "new.json", status=1)
    assert [change["kind"] for change in document["changes"]] == ["regression"]
    assert plain.json("conformance", "diff", "new.json", "old.json")["changes"][0]["kind"] == "improvement"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_diff_of_what_is_no_report(plain: Cli, content: bytes) -> None:
    """A file that is no report ends with 3 and names the file."""
    (plain.directory / "bad.json").write_bytes(content)
    assert "bad.json is not a report" in plain("conformance", "diff", "bad.json", "bad.json", status=3).err


def under_pytest(cli: Cli, *arguments: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
    """Run pytest in an empty directory, with our plugin and no other."""
    plugins = ("-p", "hsmbridge_conformance.pytest_plugin") if plugin else ()
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-p", "no:cacheprovider", *arguments],
        cwd=cli.directory,
        env={**cli.variables, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_pytest_finds_the_plugin() -> None:
    """The package announces the plugin to pytest by the name of the module that has its options."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (name,) = project["entry-points"]["pytest11"].values()
    assert name == pytest_plugin.__name__
    assert {"pytest_addoption", "pytest_configure"} <= set(pytest_plugin.__all__)


def test_pytest_items(own: Cli) -> None:
    """Each chosen check is an item of pytest's, without any test file; it fails or is skipped as its results say."""
    label, path = own.variables["PKCS11_TOKEN_LABEL"], pin_file(own, own.variables["PKCS11_PIN"])
    module = own.variables["PKCS11_MODULE"]
    options = ("--hsmbridge-module", module, "--hsmbridge-token-label", label, "--hsmbridge-pin-file", str(path))
    done = under_pytest(own, *options, "-k", "HSB-KAT or HSB-WRAP-001 or run", "--junitxml", "r.xml")
    cases = {
        str(case.get("name")): {child.tag for child in case if child.tag != "system-out"}
        for case in ET.parse(own.directory / "r.xml").getroot().iter("testcase")  # noqa: S314 - our own document
    }
    document = own.json(*RUN, "--only", "KAT", "--only", "WRAP-001", status=1)
    expected = {}
    for check_id in dict.fromkeys(check["id"] for check in document["checks"]):
        verdicts = {check["verdict"] for check in document["checks"] if check["id"] == check_id}
        skipped = verdicts <= {"unsupported", "waived"}
        expected[check_id] = {"failure"} if verdicts & FAILED else {"skipped"} if skipped else set()
    assert cases == {**expected, "run": set()}
    assert done.returncode == 1
    assert "C_UnwrapKey -> CKR_OK" in done.stdout
    assert "pytest_suite.py" not in done.stdout.split("FAILURES")[1].split("short test summary")[0]


def test_pytest_without_a_token(own: Cli) -> None:
    """Where no run can begin the first item fails, the others are skipped, and the PIN is tried once."""
    watched, log = spied(own)
    watched = watched.having(PKCS11_PIN="wrong-pin")
    done = under_pytest(watched, "--hsmbridge-module", watched.variables["PKCS11_MODULE"], "-k", "HSB-WRAP")
    assert "1 failed" in done.stdout
    assert " passed" not in done.stdout
    assert "CKR_PIN_INCORRECT" in done.stdout
    assert logins(log) == 1


def test_pytest_is_left_alone(own: Cli) -> None:
    """Without the option the plugin adds no item and loads nothing of the suite."""
    (own.directory / "test_own.py").write_text(
        "import sys\n\ndef test_own():\n"
        "    assert [name for name in sys.modules if name.startswith(('hsmbridge', 'pkcs11'))] == [\n"
        "        'hsmbridge_conformance', 'hsmbridge_conformance.pytest_plugin']\n"
    )
    done = under_pytest(own)
    assert "1 passed" in done.stdout, done.stdout
    assert under_pytest(own, "--hsmbridge-module", "m", "-p", "xdist", "-n", "2").returncode == 4
