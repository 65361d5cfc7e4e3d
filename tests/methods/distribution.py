"""The package that docs/extending.md shows, installed for the length of a test."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import invalidate_caches
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
NAME = "adaptive_topk"
_BLOCK = re.compile(r"^```\w+\n# file: (\S+)\n(.*?)^```$", re.M | re.S)


def files() -> dict[str, str]:
    """Return the text of each file by its path."""
    blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(dict(blocks)) == len(blocks), "a file is shown twice"
    return dict(blocks)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the package and its metadata to a folder, and put that on the path."""
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{NAME}-{project['version']}.dist-info"
    info.mkdir()
    version = project["version"]
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {at}" for name, at in points.items())]
    info.joinpath("entry_points.txt").write_text("\n".join(lines) + "\n")
    for module in [m for m in sys.modules if m.partition(".")[0] == NAME]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(folder))
    invalidate_caches()
    return folder
