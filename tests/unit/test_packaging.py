"""What a user installs: the wheel's content, and the pinned requirement files."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from hsmbridge import _version

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"hsmbridge", "hsmbridge_csp", "hsmbridge_cli", "hsmbridge_conformance"}
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))

PINNED = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[A-Za-z0-9.+!]+)(?: ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from this checkout, as ``make wheel`` does."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    built = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def members(wheel: Path) -> set[str]:
    """List the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def read(wheel: Path, ending: str) -> str:
    """Return the text of the one file of the wheel whose path ends so."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(ending))
        return archive.read(name).decode()


def pins(path: Path) -> dict[str, str]:
    """Return what a requirement file pins: version by name."""
    return {
        found["name"]: found["version"]
        for line in path.read_text("utf-8").splitlines()
        if (found := PINNED.fullmatch(line))
    }


def test_wheel_installs_only_our_packages(members: set[str]) -> None:
    """The wheel's top-level names are our packages and its metadata: nothing called csp, cli, ci or tests."""
    tops = {name.split("/")[0] for name in members}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert len(tops) == len(PACKAGES) + 1


def test_folders_that_hold_packages_are_not_packages() -> None:
    """Neither csp/ nor cli/ has an __init__.py: an import of those names must never reach us."""
    assert not (ROOT / "csp" / "__init__.py").exists()
    assert not (ROOT / "cli" / "__init__.py").exists()


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_each_package_is_typed(members: set[str], package: str) -> None:
    """Every package carries py.typed, so that a user's type checker believes our annotations (PEP 561)."""
    assert f"{package}/py.typed" in members
    assert f"{package}/__init__.py" in members


def test_wheel_holds_every_module(members: set[str]) -> None:
    """No module of the checkout is missing from the wheel."""
    folders = {
        "hsmbridge": ROOT,
        "hsmbridge_csp": ROOT / "csp",
        "hsmbridge_cli": ROOT / "cli",
        "hsmbridge_conformance": ROOT / "ci" / "conformance",
    }
    modules = {
        path.relative_to(folder).as_posix()
        for package, folder in folders.items()
        for path in (folder / package).rglob("*.py")
    }
    assert modules <= members


def test_wheel_carries_the_licence(wheel: Path) -> None:
    """The wheel holds the licence, byte for byte that of the checkout, and its metadata name it."""
    assert read(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text("utf-8")
    metadata = Parser().parsestr(read(wheel, ".dist-info/METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"


def test_version_is_written_once(wheel: Path) -> None:
    """The wheel's version is the one in hsmbridge/_version.py, and pyproject.toml repeats it nowhere."""
    metadata = Parser().parsestr(read(wheel, ".dist-info/METADATA"))
    assert metadata["Version"] == _version.__version__
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_wheel_installs_the_command(wheel: Path) -> None:
    """The one console script is `hsmbridge`, and it calls hsmbridge_cli.main:main."""
    entry_points = configparser.ConfigParser()
    entry_points.read_string(read(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == {"hsmbridge": "hsmbridge_cli.main:main"}


def test_runtime_dependencies_have_no_upper_bound(wheel: Path) -> None:
    """Each runtime dependency has a lower bound and no cap: a cap would lock users out of security updates."""
    metadata = Parser().parsestr(read(wheel, ".dist-info/METADATA"))
    required = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert {re.split(r"[<>=!~]", line)[0] for line in required} == {
        "cbor2",
        "click",
        "cryptography",
        "python-pkcs11",
        "rich",
    }
    for line in required:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", line), line


def test_the_one_extra(wheel: Path) -> None:
    """A library for TLS handshakes comes with the extra tls-demo alone, and without a cap."""
    metadata = Parser().parsestr(read(wheel, ".dist-info/METADATA"))
    assert metadata.get_all("Provides-Extra") == ["tls-demo"]
    extras = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" in line]
    assert [re.sub(r"\s*;.*", "", line) for line in extras] == ["tlslite-ng>=0.8.2"]


def test_there_are_requirement_files() -> None:
    """The pinned files are where the Makefile looks for them."""
    assert [path.name for path in REQUIREMENTS] == ["dev.txt", "judges.txt", "lock.txt", "runtime.txt"]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_pins_and_hashes(path: Path) -> None:
    """A requirement file holds pinned names, each with a hash, and comments: nothing says where from."""
    text = path.read_text("utf-8")
    assert "://" not in text
    assert "file:/" not in text
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert PINNED.fullmatch(line) or HASH.fullmatch(line), line
        assert HASH.fullmatch(following) or not line.endswith("\\"), f"no hash after {line}"


def test_tests_run_with_the_pinned_runtime() -> None:
    """What the tests run with is what the installed wheel is tried with: dev.txt repeats every pin of runtime.txt."""
    development = pins(ROOT / "requirements" / "dev.txt")
    runtime = pins(ROOT / "requirements" / "runtime.txt")
    assert runtime.items() <= development.items()


def test_pins_satisfy_every_direct_dependency() -> None:
    """Each dependency that pyproject.toml names is pinned: nothing was added there without `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    runtime = {re.split(r"[<>=!~]", line)[0] for line in project["project"]["dependencies"]}
    groups = project["dependency-groups"]
    development = {re.split(r"[<>=!~]", line)[0] for name in ("build", "lint", "test") for line in groups[name]}
    assert runtime <= pins(ROOT / "requirements" / "runtime.txt").keys()
    assert development <= pins(ROOT / "requirements" / "dev.txt").keys()
    assert set(groups["judges"]) <= pins(ROOT / "requirements" / "judges.txt").keys()
    assert set(groups["lock"]) <= pins(ROOT / "requirements" / "lock.txt").keys()


def test_no_lock_file_of_another_tool() -> None:
    """The pins have one home: no tool's lock file, which would name a registry's host, lies beside them."""
    foreign = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml"}
    assert not {path.name for path in ROOT.iterdir()} & foreign
