"""The shape of the house: imports point one way, modules stay small, public names are known."""

import ast
import importlib
import json
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "volseg"
FLOORS = [
    {"checks", "geometry", "files"},
    {"data", "transforms", "networks", "losses", "metrics"},
    {"inferers", "handlers", "reports"},
    {"bundles", "ensembles"},
    {"cli"},
]
STRANGERS = FLOORS[1]
ROOMS = ["data", "transforms", "networks", "losses", "metrics", "inferers", "handlers", "reports"]
MODULES = sorted(PACKAGE.rglob("*.py"))
INVENTORY = Path(__file__).parent / "public_names.json"


def room_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "volseg" and len(parts) > 1 else None


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = node.module
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "volseg" else [base]
        found |= {room for room in map(room_of, names) if room and room != "__version__"}
    return found


def module_id(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for room in imported_rooms(path) - {own}:
        assert floor_of(room) <= floor_of(own), f"{own} imports {room}, which stands above it"
        assert not (own in STRANGERS and room in STRANGERS), f"{own} imports its neighbour {room}"


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_modules_end_before_line_400(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_nothing_is_validated_by_assert(path):
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]


def test_public_names_are_those_of_the_inventory():
    names = {room: sorted(importlib.import_module(f"volseg.{room}").__all__) for room in ROOMS}
    assert names == json.loads(INVENTORY.read_text()), (
        "the public names changed; removing one needs a line in CHANGELOG.md; "
        "then update tests/public_names.json"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_hides_a_public_name_when_it_is_imported(room):
    module = importlib.import_module(f"volseg.{room}")
    for entry in pkgutil.iter_modules(getattr(module, "__path__", [])):
        importlib.import_module(f"volseg.{room}.{entry.name}")
    assert [name for name in module.__all__ if isinstance(getattr(module, name), ModuleType)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_exists_and_tells_what_it_is(room):
    module = importlib.import_module(f"volseg.{room}")
    for name in module.__all__:
        item = getattr(module, name)
        if callable(item):
            assert item.__doc__, f"{room}.{name} has no docstring"


def test_no_file_names_a_machine_or_leaves_work_undone():
    tracked = [
        path for path in ROOT.rglob("*") if path.suffix in {".py", ".md", ".json", ".sh", ".toml", ".conf"}
    ]
    words = [f"/{folder}/" for folder in ("work", "root")] + ["TO" + "DO", "FIX" + "ME"]
    for path in tracked:
        if any(
            part.startswith(".") or part in {"runs", "eval", "demo_run"}
            for part in path.relative_to(ROOT).parts
        ):
            continue
        for word in words:
            assert word not in path.read_text(errors="ignore"), f"{path.relative_to(ROOT)} holds {word}"
