"""The infrastructure uses public APIs of other packages only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import app

SOURCE = Path(app.__path__[0])
FILES = [file for file in SOURCE.rglob("*.py") if SOURCE / "features" not in file.parents]
FILES = list(SOURCE.rglob("*.py"))  # in the template only
PUBLIC_NAMES = {"_asdict", "_fields", "_make", "_replace"}  # of every named tuple
SETTABLE = {"sys.__stdout__", "sys.excepthook", "tempfile.tempdir"}  # documented as variables
FORBIDDEN = {"__signature__", "greenlet_spawn", "setattr"}
# Modules without documentation, which may change in every release.
INTERNAL = [r"uvicorn\..+", r".+\.(protocols|supervisors)(\..+)?"]
INTERNAL += [r"pgqueuer\.(adapters|core|domain|ports)(\..+)?"]  # option: postgres
ALLOWED_INTERNALS = {
    "uvicorn.config": "has the exit code of a process that failed to start",
    "uvicorn.protocols.http.httptools_impl": "lacks the corrections of web/http_protocol.py",
    "uvicorn.supervisors": "serve several sockets; uvicorn.run() binds one",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC_NAMES


def is_own(value: ast.expr) -> bool:
    """Return whether an expression is `self`, `cls` or `super()`."""
    name = value.func if isinstance(value, ast.Call) else value
    return isinstance(name, ast.Name) and name.id in {"self", "cls", "super"}


def root(target: ast.expr) -> str | None:
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else None


def defined_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def find_uses(tree: ast.Module) -> Iterator[str]:
    """Yield private attributes that other modules define, private modules and forbidden names."""
    defined = set(defined_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_ours = is_own(node.value) and node.attr in defined
            is_use = (is_private(node.attr) and not is_ours) or node.attr in FORBIDDEN
        elif isinstance(node, ast.Name):
            is_use = node.id in FORBIDDEN
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            is_use = any(map(is_private, ".".join([module, *names]).split(".")))
        else:
            continue
        if is_use:
            yield ast.unparse(node)


def find_internals(tree: ast.Module) -> Iterator[str]:
    """Yield the undocumented modules of other packages that are imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if re.fullmatch("|".join(INTERNAL), name))


def find_replacements(tree: ast.Module) -> Iterator[str]:
    """Yield assignments to attributes of imported objects, and to the route of a scope."""
    nodes = list(ast.walk(tree))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {(a.asname or a.name).split(".")[0] for node in imports for a in node.names}
    for node in nodes:
        if not isinstance(node, ast.Attribute | ast.Subscript) or isinstance(node.ctx, ast.Load):
            continue
        text = ast.unparse(node)
        is_replaced = isinstance(node, ast.Attribute) and root(node) in imported
        if (is_replaced and text not in SETTABLE) or text == "scope['route']":
            yield f"{text} ="


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("request._send", "request._send"),
        ("self.client._pool", "self.client._pool"),
        ("f()._x", "f()._x"),
        ("self._declare()", "self._declare"),
        ("f.__signature__ = x", "f.__signature__"),
        ("setattr(x, name, 1)", "setattr"),
        ("greenlet_spawn(f)", "greenlet_spawn"),
        ("from httpx._client import x", "from httpx._client import x"),
        ("from httpx import _client", "from httpx import _client"),
        ("import httpx._client", "import httpx._client"),
        ("import httpx\nhttpx.AsyncClient.send = f", "httpx.AsyncClient.send ="),
        ("from httpx import AsyncClient as C\na, C.send = 1, f", "C.send ="),
        ("scope['route'] = 1", "scope['route'] ="),
        ("self._x = 1\nself._x, cls._x, super()._x, row._replace(a=1), f.__name__", None),
        ("import sys\nsys.excepthook = f\napp.openapi = f\nself.x = scope['route']", None),
    ],
)
def test_private_apis_are_found_in_source(source: str, found: str | None) -> None:
    tree = ast.parse(source)
    uses = [*find_uses(tree), *find_replacements(tree)]
    assert uses == ([found] if found else [])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from uvicorn.supervisors import Multiprocess", ["uvicorn.supervisors"]),
        ("import uvicorn.main", ["uvicorn.main"]),
        ("from pgqueuer.core.qm import x", ["pgqueuer.core.qm"]),  # option: postgres
        ("def f():\n    from a.protocols.http import x", ["a.protocols.http"]),
        ("import uvicorn\nfrom fastapi.routing import x", []),
    ],
)
def test_internal_modules_are_found_in_source(source: str, found: list[str]) -> None:
    assert list(find_internals(ast.parse(source))) == found


def test_source_imports_allowed_internal_modules_only() -> None:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in FILES]
    imported = {module for tree in trees for module in find_internals(tree)}
    assert imported == set(ALLOWED_INTERNALS)


def test_source_uses_public_apis_only() -> None:
    found = []
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        uses = [*find_uses(tree), *find_replacements(tree)]
        found += [f"{file.relative_to(SOURCE).as_posix()}: {use}" for use in uses]
    assert found == []


def test_one_module_extends_the_protocol_of_uvicorn() -> None:
    files = [file for file in FILES if "HttpToolsProtocol" in file.read_text()]
    assert files == [SOURCE / "web" / "http_protocol.py"]
