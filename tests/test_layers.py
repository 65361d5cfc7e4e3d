"""Who may call whom: the layers of ARCHITECTURE.md, read off the imports."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")


def table(title: str) -> dict[str, str]:
    """Return the rows below a title, by their first word."""
    block = PAGE.partition(f"\n## {title}\n")[2].split("```\n")[1]
    return {row.split()[0].rstrip("/"): row for row in block.splitlines()}


# What of ours each layer may import besides itself. Modules of the package's own folder
# are layers too.
ALLOWED: dict[str, set[str]] = {
    layer: set(row.replace(",", "").split()[1:])
    for layer, row in table("Who may call whom").items()
}
LOWEST = ("tasks", "telemetry", "codec", "flower", "conf", "cli", "frozen")
ALLOWED |= {layer: set() for layer in LOWEST}
# What every layer may import.
BELOW_ALL = {"__version__", "frozen"}
# The rooms of the codec, and which of the others each may import.
ROOMS: dict[str, set[str]] = {
    room: set(
        re.split(r" {2,}", row)[-1].removeprefix("imports no other room").split(", ")
    )
    - {""}
    for room, row in table("The codec room").items()
}
# For a type only: never imported when the program runs.
TYPES_ONLY = {("methods", "clients")}

PURE = {"codec", "plan"}
NOT_PURE = {
    "flwr",
    "torch",
    "socket",
    "subprocess",
    "sqlite3",
    "threading",
    "pathlib",
    "os",
    "shutil",
    "tempfile",
    "time",
}
# Who takes the date, tokens and ids from `sync.sources`, which can be passed in.
SEEDED = {"methods", "plan", "sync", "transport", "strategies", "clients"}
# Where they come from, and what is damaged is named by the date.
UNSEEDED_FILES = {"sync/sources.py", "sync/aside.py"}
# Whether the kernel is switched off, which no outcome depends on.
SWITCHES = {"codec/kernel/__init__.py"}
TORCH = {"tasks", "reference_app", "runner", "android", "codec_inputs"}
TORCH_FILES = {
    "training",
    "quantisation",
    "scaffnew",
    "compressors",
    "straight_through",
    "fedcomloc",
    "placement",
    "torch_records",
}


def folder(layer: str) -> Path:
    spec = find_spec(f"flwr_caesar.{layer}")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


def sources(layer: str) -> list[Path]:
    place = folder(layer)
    found = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    # The app that a run bundles is `reference_app`, in an own folder of `deploy`.
    return [
        path for path in found if layer != "deploy" or "caesar_app" not in path.parts
    ]


def imports(path: Path, layer: str) -> Iterator[tuple[str, bool]]:
    """Yield each module that a file imports, and whether it is only for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    only_types = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and "TYPE_CHECKING" in ast.unparse(guard.test)
        for node in ast.walk(guard)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [_absolute(node, path, layer)]
            if names == ["flwr_caesar"]:
                names = [f"flwr_caesar.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) in only_types


def _absolute(node: ast.ImportFrom, path: Path, layer: str) -> str:
    if not node.level:
        return node.module or ""
    place = folder(layer)
    inside = path.relative_to(place).parent.parts if place.is_dir() else ()
    package = ["flwr_caesar", *([layer] if place.is_dir() else []), *inside]
    kept = package[: len(package) - node.level + 1]
    return ".".join([*kept, node.module] if node.module else kept)


def test_every_layer_is_known() -> None:
    root = folder("codec").parent
    here = {p.stem for p in root.iterdir() if p.suffix == ".py" or p.is_dir()}
    here -= {"__init__", "__pycache__", "py"}
    assert here <= ALLOWED.keys()


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_a_layer_imports_only_those_below(layer: str) -> None:
    used = set()
    for path in sources(layer):
        for name, only_types in imports(path, layer):
            if not name.startswith("flwr_caesar."):
                continue
            other = name.split(".")[1]
            if (only_types and (layer, other) in TYPES_ONLY) or other in BELOW_ALL:
                continue
            assert other == layer or other in ALLOWED[layer], f"{path.name}: {name}"
            used.add(other)
    assert ALLOWED[layer] <= used, "the table allows what is not needed"


def test_no_layer_imports_one_above_it() -> None:
    order = [*ALLOWED]
    for layer, below in ALLOWED.items():
        for other in below:
            assert order.index(layer) < order.index(other), f"{layer} -> {other}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_codec_imports_only_those_below(room: str) -> None:
    for path in sorted((folder("codec") / room).rglob("*.py")):
        for name, _ in imports(path, "codec"):
            if not name.startswith("flwr_caesar.") or name == "flwr_caesar.frozen":
                continue
            other = name.split(".")[2] if name.count(".") > 1 else "nothing"
            assert other == room or other in ROOMS[room], f"{path.name}: {name}"


def test_every_file_of_the_codec_is_in_a_room() -> None:
    here = {p for p in folder("codec").iterdir() if p.name != "__pycache__"}
    assert {p.name for p in here if p.is_dir()} == ROOMS.keys()
    assert {p.name for p in here if p.is_file()} == {"__init__.py"}


def test_the_wheel_has_every_package() -> None:
    root = Path(__file__).parent.parent
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    setup = tomllib.loads(text)["tool"]["setuptools"]
    places = {root / place: name for name, place in setup["package-dir"].items()}
    places[root / "flwr_caesar"] = "flwr_caesar"
    found = {
        ".".join([name, *init.parent.relative_to(place).parts])
        for place, name in places.items()
        for init in place.rglob("__init__.py")
    }
    # Files of the app that a run bundles, and `deploy/app` under its other name.
    found -= {name for name in found if name.endswith(".caesar_app")}
    assert found - {"flwr_caesar.deploy.app"} == set(setup["packages"])


@pytest.mark.parametrize("layer", sorted(PURE))
def test_what_is_pure_sees_no_clock_and_no_file(layer: str) -> None:
    for path in sources(layer):
        if path.relative_to(folder(layer).parent).as_posix() in SWITCHES:
            continue
        for name, only_types in imports(path, layer):
            top = name.partition(".")[0]
            assert only_types or top not in NOT_PURE, f"{path.name}: {name}"


@pytest.mark.parametrize("layer", sorted(SEEDED))
def test_dates_tokens_and_ids_come_from_what_was_passed_in(layer: str) -> None:
    for path in sources(layer):
        if f"{layer}/{path.name}" in UNSEEDED_FILES:
            continue
        found = {name for name, _ in imports(path, layer)}
        assert not found & {"secrets", "uuid", "random", "datetime"}, path
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\btime\.(time|time_ns|localtime|gmtime)\(", text), path


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_only_training_imports_torch(layer: str) -> None:
    for path in sources(layer):
        if layer in TORCH or (layer == "clients" and path.stem in TORCH_FILES):
            continue
        for name, _ in imports(path, layer):
            assert name.partition(".")[0] != "torch", f"{path.name}: {name}"


def test_a_violation_is_seen(tmp_path: Path) -> None:
    path = folder("strategies") / "example.py"
    tree = "from flwr_caesar.clients import mod\nfrom .phase import Phase\nimport torch"
    example = tmp_path / "example.py"
    example.write_text(tree)
    assert path.parent.is_dir()
    tree_ = ast.parse(tree)
    found = [
        _absolute(node, path, "strategies")
        for node in tree_.body
        if isinstance(node, ast.ImportFrom)
    ]
    assert found == ["flwr_caesar.clients", "flwr_caesar.strategies.phase"]
    assert "clients" not in ALLOWED["strategies"]
    assert "strategies" not in ALLOWED["clients"]
