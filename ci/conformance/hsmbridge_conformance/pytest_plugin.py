"""The suite for those who live in pytest: options, and nothing else unless a module is named.

pytest imports this module wherever hsmbridge is installed, so it imports nothing of the suite before it has to.
"""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption", "pytest_configure"]

_OPTIONS = {
    "module": ("PATH", "judge this PKCS#11 module: adds an item for each check of the suite"),
    "module-args": ("TEXT", "its C_Initialize string [env: PKCS11_MODULE_ARGS]"),
    "token-label": ("TEXT", "the token's label [env: PKCS11_TOKEN_LABEL]"),
    "pin-file": ("FILE", "file with the PIN, mode 600 [env: PKCS11_PIN holds the PIN itself]"),
    "waivers": ("FILE", "file with results that are known"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("hsmbridge", "conformance of a PKCS#11 module")
    for name, (metavar, text) in _OPTIONS.items():
        group.addoption(f"--hsmbridge-{name}", metavar=metavar, help=text)
    group.addoption(
        "--hsmbridge-level",
        choices=("must", "should", "info"),
        default="info",
        help="the least weight to run [default: info]",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take part only where a module is named.

    Raises:
        pytest.UsageError: several processes would each run the whole suite on one token.
    """
    if config.getoption("--hsmbridge-module") is None:
        return
    if getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError("--hsmbridge-module runs the suite once, in one process: leave -n away")
    from hsmbridge_conformance.pytest_suite import SuitePlugin  # noqa: PLC0415 - see the module's docstring

    config.pluginmanager.register(SuitePlugin(config), "hsmbridge-conformance")
