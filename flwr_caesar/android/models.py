"""Which model is meant: a user's own, or one of the reference app's."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from flwr_caesar.tasks.errors import ConfigError
from flwr_caesar.tasks.models import build_model

from .errors import ExportError
from .functional import first_line

_WHAT = "write package.module:function, whose function returns a torch.nn.Module"


def names() -> list[str]:
    """Return the names of the reference app's models."""
    folder = files("flwr_caesar.conf") / "model"
    found = (Path(file.name) for file in folder.iterdir())
    return sorted(file.stem for file in found if file.suffix == ".yaml")


def make(name: str, shape: tuple[int, ...], classes: int | None) -> nn.Module:
    """Return the model of a name.

    Parameters
    ----------
    name : str
        ``package.module:function``, looked for in the current folder too, or a name of
        the reference app.
    shape : tuple of int
        Of an example; for the reference app's.
    classes : int, optional
        For the reference app's.

    Raises
    ------
    ExportError
        If there is no such model or it cannot be made.
    """
    if ":" not in name:
        return _reference(name, shape, classes)
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        made = getattr(import_module(module), attribute)()
    except Exception as error:
        raise ExportError(
            f"{name} cannot be made: {type(error).__name__}: {first_line(error)}; "
            + _WHAT
        ) from error
    if not isinstance(made, nn.Module):
        raise ExportError(f"{name} returned a {type(made).__name__}; {_WHAT}")
    return made.cpu()


def _reference(name: str, shape: tuple[int, ...], classes: int | None) -> nn.Module:
    if name not in names():
        raise ExportError(
            f"no model is named {name!r}; {_WHAT}, or choose one of the reference app: "
            + ", ".join(names())
        )
    if classes is None:
        raise ExportError(f"{name} is made for a number of classes; say --classes")
    text = (files("flwr_caesar.conf") / "model" / f"{name}.yaml").read_text("utf-8")
    config = OmegaConf.create(text)
    config.update({"input_shape": list(shape), "num_classes": classes})
    plain: Any = OmegaConf.to_container(config, resolve=True)
    try:
        return build_model(plain, seed=0)
    except ConfigError as error:
        raise ExportError(str(error)) from error
