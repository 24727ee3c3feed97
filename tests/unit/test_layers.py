"""The rules of the source tree, checked on its syntax: who imports whom, who may touch what, how long a file may be."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "hsmbridge": ROOT / "hsmbridge",
    "hsmbridge_csp": ROOT / "csp",
    "hsmbridge_cli": ROOT / "cli",
    "hsmbridge_conformance": ROOT / "ci" / "conformance",
}
MODULES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS.values() for path in folder.rglob("*.py"))

# Layers point one way, cli -> csp -> hsmbridge, and the suite stands on csp: for each package, those that it must not
# know.
FORBIDDEN = {
    "hsmbridge": {"hsmbridge_csp", "hsmbridge_cli", "hsmbridge_conformance"},
    "hsmbridge_csp": {"hsmbridge_cli", "hsmbridge_conformance"},
    "hsmbridge_cli": set(),
    "hsmbridge_conformance": {"hsmbridge_cli"},
}

# Private use of the binding, and direct calls into a module, stay where they can be read in one go.
BINDING_USERS = {
    "hsmbridge/_binding.py": "the one place that knows python-pkcs11",
}
CTYPES_USERS = {
    "hsmbridge/_binding.py": "initialises the module with locking, which the binding cannot",
    "hsmbridge/_calls.py": "the calls that the binding lacks or makes badly",
    "hsmbridge/_operations.py": "the same, for cryptographic operations",
    "hsmbridge/_ck.py": "the C structures of those calls",
    "hsmbridge/_reading.py": "buffers for one attribute",
    "hsmbridge/attributes.py": "buffers for C_GetAttributeValue",
    "hsmbridge/mechanism.py": "mechanism parameters",
    "hsmbridge/template.py": "templates",
    "hsmbridge/tls_mechanisms.py": "mechanism parameters into which a token writes",
    "ci/conformance/hsmbridge_conformance/barecalls.py": "C functions that hsmbridge itself never calls",
    "ci/conformance/hsmbridge_conformance/barereading.py": "buffers that are too small, templates that are too long",
    "ci/conformance/hsmbridge_conformance/violating.py": "buffers of the wrong size, which only a test offers",
    "csp/hsmbridge_csp/wipe.py": "overwrites bytes objects that are ours alone",
    "csp/hsmbridge_csp/hardening.py": "prctl: no core file of a process that holds keys",
}
# Names under which C_DestroyObject can be reached, and the modules that may use them.
DESTROY_NAMES = ("C_DestroyObject", "destroy_object")
DESTROY_USERS = {
    "hsmbridge/_ck.py": "lists all functions in the order of CK_FUNCTION_LIST",
    "hsmbridge/_calls.py": "makes the call",
    "hsmbridge/destruction.py": "decides whether it may be made",
    "ci/conformance/hsmbridge_conformance/journal.py": "notes for which handles the call was made",
}

# A module says one thing in 250 lines; a table of constants may be longer, and says nothing.
MODULE_LINES = 250
TABLE_LINES = 350
TABLES = {
    "hsmbridge/_ck.py": "structures and constants of the PKCS#11 header",
    "hsmbridge/codes.py": "the CKR, CKA, CKM numbers and their names",
}


@cache
def syntax(module: str) -> ast.Module:
    """Parse one module, given by its path below the root."""
    return ast.parse((ROOT / module).read_text("utf-8"), filename=module)


def package_of(module: str) -> str:
    """Return the import package that a module belongs to."""
    return next(part for part in module.split("/") if part in FORBIDDEN)


def is_typing_only(node: ast.AST) -> bool:
    """Tell whether *node* is a block that only type checkers read."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(node: ast.AST, *, runtime: bool) -> Iterator[ast.AST]:
    """Yield *node* and all below it; with *runtime*, without what only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (runtime and is_typing_only(child)):
            yield from walk(child, runtime=runtime)


def imports(module: str, *, runtime: bool = False) -> Iterator[str]:
    """Yield every module that *module* imports, wherever it does so, also by name through import_module."""
    for node in walk(syntax(module), runtime=runtime):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import hides the layer"
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def importers_of(name: str) -> set[str]:
    """Return the modules that import the package *name* or anything below it when they run."""
    return {module for module in MODULES if name in {target.split(".")[0] for target in imports(module, runtime=True)}}


def exports(module: str) -> bool:
    """Tell whether *module* is a package's own file and hands on names of its modules."""
    return Path(module).name == "__init__.py" and any(
        target.split(".")[0] in FOLDERS for target in imports(module, runtime=True)
    )


def mentions(module: str, name: str) -> bool:
    """Tell whether code uses *name* as an attribute, a variable or a string of its own; prose does not count."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == name)
        or (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.Constant) and node.value == name)
        for node in ast.walk(syntax(module))
    )


def test_all_packages_are_looked_at() -> None:
    """The walk finds modules in each of the three packages; otherwise the tests below would prove nothing."""
    assert {package_of(module) for module in MODULES} == set(FOLDERS)


@pytest.mark.parametrize("module", MODULES)
def test_layers_point_one_way(module: str) -> None:
    """A lower layer never imports a higher one."""
    reached = {target.split(".")[0] for target in imports(module)}
    assert not reached & FORBIDDEN[package_of(module)]


@pytest.mark.parametrize("module", MODULES)
def test_public_modules_say_what_is_public(module: str) -> None:
    """Every module whose name has no underscore says in __all__ what is public, each name once."""
    if Path(module).stem.startswith("_") and not exports(module):
        pytest.skip("private by its name")
    for node in syntax(module).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        value = getattr(node, "value", None)
        if value is not None and [ast.unparse(target) for target in targets] == ["__all__"]:
            names = ast.literal_eval(value)
            assert len(names) == len(set(names))
            return
    pytest.fail(f"{module} has no __all__")


@pytest.mark.parametrize("module", MODULES)
def test_no_star_imports(module: str) -> None:
    """A reader can find where each name comes from."""
    for node in ast.walk(syntax(module)):
        if isinstance(node, ast.ImportFrom):
            assert [alias.name for alias in node.names] != ["*"], f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_annotations_are_not_evaluated(module: str) -> None:
    """Every module that holds code has the annotations future import, so that types cost nothing at start."""
    body = syntax(module).body
    if not body or (len(body) == 1 and isinstance(body[0], ast.Expr)):
        pytest.skip("holds no code")
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in body)


def test_only_the_binding_module_imports_the_binding() -> None:
    """python-pkcs11 is imported in hsmbridge/_binding.py and nowhere else: its traps have one keeper."""
    assert importers_of("pkcs11") == set(BINDING_USERS)


def test_ctypes_stays_where_it_is_allowed() -> None:
    """Modules that call C directly are the listed ones; each has its reason in the list."""
    assert importers_of("ctypes") <= set(CTYPES_USERS)


def test_only_one_place_destroys_objects() -> None:
    """C_DestroyObject is named by code only where it is called and where it is decided whether to call it."""
    users = {module for module in MODULES for name in DESTROY_NAMES if mentions(module, name)}
    assert users == set(DESTROY_USERS)


@pytest.mark.parametrize("module", MODULES)
def test_nobody_destroys_through_the_binding(module: str) -> None:
    """No code calls ``something.destroy()``: the binding's objects have that method, which asks no question."""
    for node in ast.walk(syntax(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "destroy":
            assert node.args or node.keywords, f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_short(module: str) -> None:
    """A module fits on a few screens; only the listed tables of constants may be longer."""
    lines = (ROOT / module).read_text("utf-8").count("\n")
    assert lines <= (TABLE_LINES if module in TABLES else MODULE_LINES)


def test_allow_lists_name_real_files() -> None:
    """The exceptions above are for modules that exist: a stale one would let a new file in unseen."""
    for listed in (BINDING_USERS, CTYPES_USERS, DESTROY_USERS, TABLES):
        assert set(listed) <= set(MODULES)
