"""The arrows between packages are those of docs/architecture.md, and no others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SHELLS = frozenset(
    {"audit", "etcd", "serving", "scheduler", "agent", "operator", "local", "demo", "testing"}
)
PURE = frozenset({"core", "keyspace", "jobfile"})

ALLOWED: dict[str, frozenset[str]] = {
    "core": frozenset({"core"}),
    "keyspace": frozenset({"core", "keyspace"}),
    "ports": frozenset({"core", "keyspace"}),
    "files": frozenset({"core"}),
    "jobfile": frozenset({"core", "files", "jobfile"}),
    **{shell: frozenset({*PURE, "files", "ports", shell}) for shell in SHELLS},
}
BETWEEN_SHELLS: dict[str, frozenset[str]] = {
    "scheduler": frozenset({"etcd", "serving"}),
    "agent": frozenset({"etcd", "serving"}),
    "operator": frozenset({"etcd", "serving"}),
    "local": frozenset({"agent", "etcd"}),
    "demo": frozenset({"audit", "etcd", "local", "operator"}),
    "testing": frozenset({"agent", "audit", "etcd", "operator"}),
}
AUDITORS_CORE = frozenset({"errors", "records", "states", "times"})
"""What the auditor shares with what it judges: what is written, never how it is decided."""
FORBIDDEN_IN_CORE = frozenset(
    {"asyncio", "grpc", "os", "random", "socket", "subprocess", "threading", "time", "uvloop"}
)


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src" / "etcsched").parts
    return parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0, names=names):
                found += [f"{module}.{alias.name}" for alias in names]
            case ast.ImportFrom():
                pytest.fail(f"{path}: a relative import")
    return found


SOURCES = sorted((ROOT / "src" / "etcsched").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_every_arrow_is_allowed(path: Path) -> None:
    package = package_of(path)
    if package == "__init__":
        return
    allowed = ALLOWED[package] | BETWEEN_SHELLS.get(package, frozenset())
    for name in imports_of(path):
        parts = name.split(".")
        assert parts[0] != "etcsched_cli", f"{package} imports the command line: {name}"
        if parts[0] == "etcsched" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed, f"{package} imports {name}"


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if package_of(path) in PURE],
    ids=lambda p: str(p.relative_to(ROOT / "src")),
)
def test_pure_packages_do_no_io(path: Path) -> None:
    if package_of(path) == "jobfile" and path.name == "reading.py":
        return  # Reads the files whose text the rest of jobfile takes.
    for name in imports_of(path):
        assert name.split(".")[0] not in FORBIDDEN_IN_CORE, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if package_of(path) == "audit"], ids=lambda p: p.name
)
def test_the_auditor_shares_no_decision(path: Path) -> None:
    for name in imports_of(path):
        parts = name.split(".")
        if parts[:2] == ["etcsched", "core"]:
            shared = parts[2] in AUDITORS_CORE or parts[2:4] == ["schedule", "patterns"]
            assert shared, f"{path.name} imports {name}"
        assert parts[0] != "croniter", f"{path.name} has its ticks from what it judges"
        assert name != "etcsched.keyspace.transactions", f"{path.name} imports {name}"


def test_there_is_something_to_walk() -> None:
    assert {"core", "keyspace", "etcd", "scheduler", "agent"} <= {package_of(p) for p in SOURCES}
