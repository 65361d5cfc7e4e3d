"""The Kotlin compiler from npm, and what it makes of the Android client's core.

Both are kept in the user's cache: the compiler by its lock file, the classes by a hash
of the sources, so that a second run of the tests pays for neither.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "clients" / "android"
CORE = CLIENT / "core" / "src"
_KEPT = 4
_OPTIONS = ("-jvm-target", "1.8", "-Xjdk-release=1.8", "-Werror")
"""The classes of Java 8 are those that Android has from API 26 on."""


class MissingToolError(Exception):
    """The machine lacks what the compiler needs; the message says what."""


def cache() -> Path:
    """Return the folder in which compiler and classes are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "flwr-caesar" / "android"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def require_tools() -> None:
    """Raise `MissingToolError` unless there are a JDK and npm."""
    for tool, package in (("javac", "a JDK, 17 or later"), ("npm", "Node.js with npm")):
        if shutil.which(tool) is None:
            raise MissingToolError(
                f"the Android client is not compiled: no {tool} on the PATH; "
                f"install {package}"
            )


def compiler() -> Path:
    """Return the folder of the Kotlin compiler, installed if need be."""
    require_tools()
    lock = (HERE / "package-lock.json").read_bytes()
    name = "compiler-" + hashlib.sha256(lock).hexdigest()[:16]
    return _kept(name, _install) / "node_modules" / "kotlin-compiler"


def classes() -> Path:
    """Return the jar of the core and of its tests' bench, compiled if need be."""
    kotlin = compiler()
    sources = sorted(CORE.rglob("*.kt"))
    digest = hashlib.sha256(" ".join([kotlin.parent.parent.name, *_OPTIONS]).encode())
    for path in sources:
        digest.update(path.relative_to(CORE).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    name = "core-" + digest.hexdigest()[:16]
    folder = _kept(name, lambda target: _compile(kotlin, sources, target))
    _forget_old("core-*", keep=name)
    return folder / "core.jar"


def class_path() -> str:
    """Return the class path of the core."""
    return os.pathsep.join(
        [str(classes()), str(compiler() / "lib" / "kotlin-stdlib.jar")]
    )


def kotlinc(kotlin: Path, arguments: Sequence[str]) -> None:
    """Run the compiler.

    Raises
    ------
    RuntimeError
        With what it says, if the sources do not compile.
    """
    java = "-Xmx1g -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    done = subprocess.run(
        ["bash", str(kotlin / "bin" / "kotlinc"), *arguments],
        env={**os.environ, "JAVA_OPTS": java},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"kotlinc failed:\n{done.stdout}{done.stderr}")


def _install(target: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, target)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=target,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"npm ci failed:\n{done.stdout}{done.stderr}")


def _compile(kotlin: Path, sources: Sequence[Path], target: Path) -> None:
    kotlinc(kotlin, [*_OPTIONS, "-d", str(target / "core.jar"), *map(str, sources)])


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, made by one process if it is not there yet."""
    folder = cache() / name
    if not folder.exists():
        with _locked(name):
            if not folder.exists():
                with tempfile.TemporaryDirectory(dir=cache(), prefix="new-") as new:
                    made = Path(new) / "made"
                    made.mkdir()
                    make(made)
                    made.rename(folder)
    os.utime(folder)
    return folder


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_old(pattern: str, *, keep: str) -> None:
    folders = [path for path in cache().glob(pattern) if path.is_dir()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in folders[_KEPT:]:
        if path.name != keep:
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(path.name + ".lock").unlink(missing_ok=True)
