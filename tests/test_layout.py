"""Dependencies point one way, and only `proxy/` and `stores/` touch the world."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDON = Path(__file__).parents[1] / "addon"
PACKAGE = ADDON / "mitmcontext"

# What only `proxy/` and `stores/` may import: the proxy, the network, disks, clocks and chance.
WORLD = frozenset(
    (
        *("mitmproxy", "tornado", "httpx", "requests", "urllib.request", "http", "ssl", "socket"),
        *("asyncio", "anyio", "concurrent", "multiprocessing", "subprocess", "signal"),
        *("sqlite3", "redis", "shelve", "pickle", "tempfile", "shutil"),
        *("time", "datetime", "random", "secrets", "uuid"),
    )
)
# Which parts of our own each part may import beside itself.
ALLOWED: dict[str, frozenset[str]] = {
    "values": frozenset(),
    "models": frozenset(),
    "wire": frozenset({"values"}),
    "tokens": frozenset({"values", "models"}),
    "condense": frozenset({"values"}),
    "readers": frozenset({"models"}),
    "profiles": frozenset(),
    "settings": frozenset({"condense", "models", "profiles", "readers"}),
    "known": frozenset({"values", "tokens", "wire"}),
    "rewrite": frozenset({"values", "condense", "wire"}),
    "stretches": frozenset({"values", "condense", "known", "wire"}),
    "recollect": frozenset({"values", "stretches", "wire"}),
    "births": frozenset({"values", "condense", "known", "tokens", "wire"}),
    "pipeline": frozenset(
        {
            "values",
            "births",
            "condense",
            "known",
            "models",
            "recollect",
            "rewrite",
            "stretches",
            "tokens",
            "wire",
        }
    ),
    "summarising": frozenset({"values", "condense", "known", "pipeline", "wire"}),
    "stores": frozenset({"values"}),
}


def imports(file: Path) -> Iterator[str]:
    """The full names of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where things are from"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def files_of(part: str) -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


# For programs of one's own; the addon uses none of it.
OFFERED = frozenset(
    (
        *("accurate_token_counter", "context_window_manager", "load_testing"),
        *("multi_tier_cache", "performance_benchmark", "performance_monitor"),
    )
)

THINKING = [
    pytest.param(part, file, id=str(file.relative_to(PACKAGE)))
    for part in ALLOWED
    for file in files_of(part)
]


@pytest.mark.parametrize(("part", "file"), THINKING)
def test_thinking_is_kept_apart_from_doing(part: str, file: Path) -> None:
    forbidden = {"mitmproxy", "httpx"} if part == "stores" else WORLD
    found = {name for name in imports(file) for world in forbidden if is_within(name, world)}
    assert not found


@pytest.mark.parametrize(("part", "file"), THINKING)
def test_dependencies_point_one_way(part: str, file: Path) -> None:
    ours = {name.split(".")[1] for name in imports(file) if name.startswith("mitmcontext.")}
    assert ours - {part} <= ALLOWED[part]


@pytest.mark.parametrize(("part", "file"), THINKING)
def test_nothing_thinks_and_writes(part: str, file: Path) -> None:
    """No files are opened, nothing is printed, nothing is logged where values are made."""
    if part == "stores":
        return
    called = {
        node.func.id
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "eval", "exec", "__import__"}
    assert not any(is_within(name, "logging") or is_within(name, "os") for name in imports(file))


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


ENUMS = frozenset({"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "ReprEnum"})
CODE = [
    pytest.param(ast.parse(file.read_text(encoding="utf-8")), id=str(file.relative_to(ADDON)))
    for file in sorted(ADDON.rglob("*.py"))
]


def enums_of(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """The names of a module's enums, each with those of what it is made from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if bases & ENUMS:
                yield node.name, bases


@pytest.mark.parametrize("tree", CODE)
def test_enums_are_compared_by_value(tree: ast.Module) -> None:
    """What is in flight over a reload has members of the old classes, none of which *is* a new one.

    So they are compared by `==`, and are such that equal values make them equal.
    """
    assert [name for name, bases in enums_of(tree) if not bases & {"StrEnum", "IntEnum"}] == []
    same = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(sign, ast.Is | ast.IsNot) for sign in node.ops)
        and any(is_member(side) for side in (node.left, *node.comparators))
    ]
    assert same == []


def is_member(side: ast.expr) -> bool:
    """Whether something is a member of one of our enums, as in `Kind.CALL`."""
    if not isinstance(side, ast.Attribute):
        return False
    return ast.unparse(side.value).rpartition(".")[2] in NAMES_OF_ENUMS


NAMES_OF_ENUMS = frozenset(
    name
    for file in ADDON.rglob("*.py")
    for name, _ in enums_of(ast.parse(file.read_text(encoding="utf-8")))
)


def test_every_part_has_its_place() -> None:
    """A new module belongs to one of the parts above, or to the proxy's side."""
    parts = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    parts |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts - {"proxy"} - OFFERED == set(ALLOWED)


def test_nothing_in_the_addons_folder_shadows_another_module() -> None:
    """mitmproxy puts this folder in front of everything else."""
    assert {path.stem for path in ADDON.glob("*.py")} == {"context"}
    folders = {path.name for path in ADDON.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {"mitmcontext"}


def test_the_script_itself_holds_no_name_of_a_hook() -> None:
    """mitmproxy takes the script's own names for hooks: `load` from anywhere would be called."""
    names = {
        target.id if isinstance(target, ast.Name) else getattr(target, "name", "")
        for node in ast.parse((ADDON / "context.py").read_text(encoding="utf-8")).body
        for target in (node.targets if isinstance(node, ast.Assign) else [node])
    }
    hooks = {"load", "configure", "running", "done", "update", "request", "response", "error"}
    assert not names & hooks
    imported = set(imports(ADDON / "context.py"))
    assert not {name.rpartition(".")[2] for name in imported} & hooks
