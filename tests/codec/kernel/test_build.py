"""The package is built with the kernel, without it, and where nothing compiles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
KERNEL = ROOT / "flwr_caesar" / "codec" / "kernel"
PARTS = ("flwr_caesar", "strategies", "clients", "conf", "deploy")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
BUILD = "from setuptools import build_meta; print(build_meta.build_{}('.'))"
FREE_THREADED = "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; "
ASK = "from flwr_caesar.codec import kernel as k; print(k.native is None, k.in_use)"
HAS_COMPILER = (
    shutil.which("cc") is not None
    and (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()
)

pytestmark = pytest.mark.skipif(
    int(version("setuptools").partition(".")[0]) < 77,
    reason="needs the setuptools of pyproject.toml",
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Copy what a wheel is built of."""
    place = tmp_path / "sources"
    left_out = shutil.ignore_patterns("*.so", "__pycache__")
    for name in PARTS:
        shutil.copytree(ROOT / name, place / name, ignore=left_out)
    for name in FILES:
        shutil.copy(ROOT / name, place)
    return place


def build(
    sources: Path, kind: str = "wheel", before: str = "", **variables: str
) -> Path:
    """Build a wheel, or an sdist, in an environment with these variables."""
    environment = {k: v for k, v in os.environ.items() if k != "FLWR_CAESAR_KERNEL"}
    done = subprocess.run(
        [sys.executable, "-c", before + BUILD.format(kind)],
        cwd=sources,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return sources / done.stdout.splitlines()[-1]


def installed_says(wheel: Path, place: Path) -> str:
    """Unpack a wheel, which is how it is installed, and ask for the kernel there."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=place,
        env={k: v for k, v in os.environ.items() if k != "FLWR_CAESAR_KERNEL"}
        | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_where_nothing_compiles_the_wheel_works_without_the_kernel(sources, tmp_path):
    wheel = build(sources, CC="/bin/false")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "flwr_caesar/codec/kernel/__init__.py" in names
    assert not [name for name in names if name.endswith((".so", ".c", ".h"))]
    said = installed_says(wheel, tmp_path / "installed")
    assert said.startswith("True numpy, as the compiled kernel cannot be loaded")


def test_switched_off_the_wheel_is_for_every_machine(sources):
    wheel = build(sources, FLWR_CAESAR_KERNEL="no")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_where_python_has_no_stable_abi_the_wheel_is_without_the_kernel(sources):
    wheel = build(sources, before=FREE_THREADED)
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_sources_to_build_of_have_the_kernel_even_if_it_is_off(sources):
    kept = build(sources, "sdist", FLWR_CAESAR_KERNEL="off")
    with tarfile.open(kept) as archive:
        found = {Path(name).name for name in archive.getnames()}
    folder = ROOT / "flwr_caesar" / "codec" / "kernel"
    code = {path.name for path in folder.iterdir() if path.suffix in (".c", ".h")}
    assert code
    assert {"setup.py", *code} <= found


@pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler, or no Python.h for it")
def test_with_a_compiler_one_wheel_is_for_every_python_from_3_11(sources, tmp_path):
    wheel = build(sources)
    assert "-cp311-abi3-" in wheel.name
    said = installed_says(wheel, tmp_path / "installed")
    assert said == "False the compiled kernel\n"


@pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler, or no Python.h")
@pytest.mark.parametrize("name", sorted(p.name for p in KERNEL.glob("*.c")))
def test_no_source_has_a_warning(name: str) -> None:
    """Newer compilers refuse what older ones warn of, and then there is no kernel."""
    warn = ["-std=c11", "-O2", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    include = f"-I{sysconfig.get_paths()['include']}"
    done = subprocess.run(
        ["cc", *warn, include, KERNEL / name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
