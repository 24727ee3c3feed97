"""Write the pinned requirement files from pyproject.toml. Run it with ``make lock``.

Every file pins each distribution and lists the SHA-256 of all its files, so that one set of pins serves every Python
version and machine; and none names the place that they come from, so that the reader's own index or mirror serves too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYPROJECT = HERE.parent / "pyproject.toml"

HEADER = (
    "# Written by `make lock` from pyproject.toml. Install it with: pip install --no-deps --require-hashes -r {name}"
)

OPTIONS = (
    "--quiet",
    "--upgrade",
    "--allow-unsafe",
    "--generate-hashes",
    "--strip-extras",
    "--no-annotate",
    "--no-config",
    "--no-header",
    "--no-emit-options",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
)

# A machine may be set up to take packages from local places first; a hash of such a copy would be of use to nobody
# else. Certificates and proxies, which come from other variables, are kept.
LOCAL_SOURCES = ("PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL")


def group(groups: dict[str, list[str | dict[str, str]]], name: str) -> list[str]:
    """Return the requirements of a dependency group, those of the groups that it includes among them.

    Args:
        groups: the table ``dependency-groups`` of pyproject.toml.
        name: the group's name.

    Source: PEP 735.
    """
    found: list[str] = []
    for entry in groups[name]:
        found.extend([entry] if isinstance(entry, str) else group(groups, entry["include-group"]))
    return found


def compile_file(name: str, requirements: list[str], constraints: Path | None = None) -> Path:
    """Resolve *requirements* and write them, pinned and hashed, to the file *name* beside this script.

    Args:
        name: the file's name.
        requirements: requirement lines as pyproject.toml has them.
        constraints: a file of this kind whose pins hold here too.

    Raises:
        subprocess.CalledProcessError: pip-compile found no set of versions, or no index.
    """
    target = HERE / name
    environment = {key: value for key, value in os.environ.items() if key not in LOCAL_SOURCES}
    environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "wanted.in")
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        pinned = Path(scratch, name)
        command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, "--output-file", str(pinned), str(wanted)]
        if constraints:
            command += ["--constraint", str(constraints)]
        subprocess.run(command, check=True, env=environment, cwd=scratch)  # noqa: S603 - arguments are our own
        pins = [line for line in pinned.read_text("utf-8").splitlines() if not line.startswith("#")]
    target.write_text("\n".join([HEADER.format(name=f"requirements/{name}"), *pins, ""]), encoding="utf-8")
    return target


def main() -> None:
    """Write all four files."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))
    runtime: list[str] = project["project"]["dependencies"]
    groups = project["dependency-groups"]
    pinned_runtime = compile_file("runtime.txt", runtime)
    compile_file("dev.txt", runtime + group(groups, "dev"), pinned_runtime)
    compile_file("judges.txt", group(groups, "judges"))
    compile_file("lock.txt", group(groups, "lock"))


if __name__ == "__main__":
    main()
