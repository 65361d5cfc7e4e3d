"""torchvision, also beside a build of torch that its compiled operators do not fit."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Return torchvision.

    A torchvision whose operators were compiled for another torch (a CUDA wheel beside
    a CPU torch) fails on import, because it describes operators that do not exist.
    Models need none of them, so their schemas are declared and the import repeated. A
    matching pair of wheels is imported as it is.

    Raises
    ------
    ImportError
        If torchvision is not installed.
    """
    try:
        return import_module("torchvision")
    except RuntimeError as err:
        if "torchvision::" not in str(err):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    if not _declared:
        library = torch.library.Library(  # type: ignore[no-untyped-call]
            "torchvision", "FRAGMENT"
        )
        for schema in _SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
    return import_module("torchvision")
