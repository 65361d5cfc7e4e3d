"""The parts that need Android compile against its API 36, and nothing misspelt does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from .android_stubs import MissingClassError, Stubs, compile_stubs, imported
from .jvm import Jvm
from .toolchain import CLIENT, class_path, compiler, kotlinc

SOURCES = sorted(
    path for part in ("android", "sample") for path in (CLIENT / part).rglob("*.kt")
)


def compile_glue(sources: list[Path], folder: Path) -> None:
    path = os.pathsep.join(
        [class_path(), str(compile_stubs(imported(sources), folder))]
    )
    target = ["-d", str(folder / "out.jar"), "-Werror", "-jvm-target", "1.8"]
    kotlinc(compiler(), [*target, "-cp", path, *map(str, sources)])


def test_the_glue_and_the_sample_compile(jvm: Jvm, tmp_path: Path) -> None:
    assert len(SOURCES) > 5
    compile_glue(SOURCES, tmp_path)


def test_a_misspelt_member_does_not_compile(jvm: Jvm, tmp_path: Path) -> None:
    """Of each of a few classes, in one file each, so that all are found at once."""
    wrong = {
        "isPowerSaveMode": "isPowerSavingMode",
        "setRequiresDeviceIdle": "setRequiresDeviceIdling",
        "setIsStrongBoxBacked": "setStrongBoxBacked",
        "FOREGROUND_SERVICE_TYPE_DATA_SYNC": "FOREGROUND_SERVICE_TYPE_SYNC",
        "onTimeout": "onTimedOut",
        "dataAsLongArray": "dataAsLongs",
    }
    changed = []
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        for right, misspelt in wrong.items():
            text = re.sub(rf"\b{right}\b", misspelt, text)
        changed.append(tmp_path / source.name)
        changed[-1].write_text(text)
    with pytest.raises(RuntimeError) as caught:
        compile_glue(changed, tmp_path)
    for misspelt in wrong.values():
        assert misspelt in str(caught.value)


def test_a_class_that_android_has_not_is_missed() -> None:
    with pytest.raises(MissingClassError, match="PowerMonger"):
        Stubs({"android.os.PowerMonger"})
