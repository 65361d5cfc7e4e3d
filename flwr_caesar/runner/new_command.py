"""``flwr-caesar new``: a Flower app of one's own, with the two lines in it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

_TEMPLATE = ".template"
_OUTSIDE = ("pyproject.toml", "README.md")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar new`` with these arguments.

    Returns
    -------
    int
        0, or 1 if the folder cannot be made or is not empty.
    """
    parser = argparse.ArgumentParser(
        prog="flwr-caesar new",
        description="Make a Flower app that runs as it is: a small network learns "
        "handwritten digits, with compressed traffic. Put your model and data in it.",
    )
    parser.add_argument("folder", type=Path, help="to make; its name is the app's")
    folder: Path = parser.parse_args(arguments).folder
    name = folder.resolve().name.lower().replace("_", "-")
    try:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name for an app: use letters, digits and dashes"
            )
        make(folder, name)
    except (OSError, ValueError) as error:
        print(f"flwr-caesar new: {error}", file=sys.stderr)
        return 1
    print(f"{folder} has a Flower app. It needs torch and scikit-learn. Run it:\n")
    print(f"  flwr-caesar run app={folder} federation.kind=inline   in one process")
    print(f"  flwr-caesar run app={folder}   on Flower's simulation engine\n")
    print(f"Your model and your data go into {folder / _package(name) / 'task.py'}.")
    return 0


def make(folder: Path, name: str) -> None:
    """Write the app's files.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    name : str
        The app's, with dashes.

    Raises
    ------
    FileExistsError
        If the folder has something in it.
    OSError
        If it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already and not empty")
    package = folder / _package(name)
    package.mkdir(parents=True)
    for source in files("flwr_caesar.runner").joinpath("new_app").iterdir():
        if not source.name.endswith(_TEMPLATE):
            continue
        own = source.name.removesuffix(_TEMPLATE)
        text = source.read_text(encoding="utf-8")
        text = text.replace("PACKAGE", _package(name)).replace("NAME", name)
        place = folder if own in _OUTSIDE else package
        (place / own).write_text(text, encoding="utf-8")


def _package(name: str) -> str:
    return name.replace("-", "_")
