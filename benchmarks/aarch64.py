"""Codecs, states and golden frames on aarch64, by qemu's emulation of the processor.

Makes a Debian for aarch64 in a folder, without its packages' scripts, puts the wheels
of constraints.txt and this clone into it with its compiled kernel, runs there the tests
of the kernel, of the codecs and of the state, compares by `frames.py` what both
processors write and read, and writes docs/benchmarks/aarch64.md. Needs root, and
Debian's qemu-user-static, debootstrap and gcc-aarch64-linux-gnu; takes ten minutes.
A folder that was made before is used again.

    sudo python benchmarks/aarch64.py --folder /var/tmp/aarch64
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from environment import describe

HERE = Path(__file__).parent
CLONE = HERE.parent
TABLE = CLONE / "docs" / "benchmarks" / "aarch64.md"
EMULATOR = "qemu-aarch64-static"
COMPILER = "aarch64-linux-gnu-gcc"
KERNEL = "flwr_caesar/codec/kernel"
# The nearest that qemu has to the A78AE of Orin; its default has SVE, with which
# numpy's BLAS returned infinities.
PROCESSOR = "cortex-a76"
DEBIAN = "python3,libpython3.11-stdlib,libexpat1,libffi8,libssl3,libsqlite3-0,libgomp1"
WHEELS = (
    *("flwr", "numpy", "zstandard", "ml-dtypes", "safetensors"),
    *("pytest", "hypothesis"),
)
PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux2014_aarch64",
)
SOURCES = {
    "flwr_caesar": "flwr_caesar",
    "strategies": "flwr_caesar/strategies",
    "clients": "flwr_caesar/clients",
    "tests": "tests",
    "docs": "docs",
    "benchmarks": "benchmarks",
}
# These start Python again, which a system without binfmt cannot run in the emulator.
NEEDS_PROCESSES = (
    "test_folder.py::test_two_processes_exclude_each_other",
    "test_folder.py::test_a_process_without_descriptors_goes_on_later",
    "test_ledger.py::test_a_server_killed_while_it_commits_lost_nothing_whole",
    "test_ledger_damage.py::test_a_ledger_killed_while_it_is_brought_up_to_date",
    "test_ledger_damage.py::test_a_lock_is_not_waited_for_without_end",
    "test_ledger_damage.py::test_a_lock_of_another_process_is_waited_for_and_named",
    "test_lock.py::test_a_child_does_not_have_its_parents_lock",
    "test_lock.py::test_one_process_takes_it_once_and_does_not_lose_it_by_trying",
    "test_lock.py::test_the_child_of_a_killed_holder_keeps_nobody_out",
    "test_lock.py::test_who_has_it_is_named",
)
SUITES = {
    "kernel beside numpy": [
        f"tests/codec/kernel/test_{part}.py" for part in ("native", "arguments")
    ],
    "golden frames": ["tests/codec/test_vectors.py"],
    # Of all codecs, by the suite for third parties; the others test parts of them.
    "codecs": [
        "tests/codec/conformance/test_conformance.py",
        *(f"tests/codec/contract/test_{p}.py" for p in ("state", "feedback", "update")),
        *(f"tests/codec/coding/test_{p}.py" for p in ("rans", "positions")),
    ],
    "states and protocol": ["tests/sync"],
}


def main() -> None:
    """Make the tree if it is not there, run everything, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--suite", action="append", choices=list(SUITES))
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("chroot needs root: run it with sudo")
    root = options.folder / "root"
    if not (root / EMULATOR).exists():
        make_debian(root)
    if not (root / "site" / "numpy").exists():
        install_wheels(root)
    copy_sources(root)
    compile_kernel(root)
    results = {name: run_suite(root, name) for name in options.suite or SUITES}
    told = _output([sys.executable, HERE / "frames.py"])
    (root / "src" / "here.json").write_text(told, encoding="utf-8")
    asked = emulated(root, "/src/benchmarks/frames.py", "/src/here.json")
    write_table(root, results, json.loads(told), json.loads(_output(asked)))


def make_debian(root: Path) -> None:
    """Unpack what Debian's Python needs; nothing of it is configured."""
    command = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase"]
    subprocess.run([*command, f"--include={DEBIAN}", "bookworm", str(root)], check=True)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    shutil.copy(shutil.which(EMULATOR) or f"/usr/bin/{EMULATOR}", root / EMULATOR)


def install_wheels(root: Path) -> None:
    """Install wheels of aarch64 with this machine's pip."""
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    command += ["--target", str(root / "site"), "--python-version", "3.11", *platforms]
    command += ["--constraint", str(CLONE / "constraints.txt"), *WHEELS]
    subprocess.run(command, check=True)


def copy_sources(root: Path) -> None:
    """Copy the clone as it would be installed, and its tests."""
    target = root / "src"
    shutil.rmtree(target, ignore_errors=True)
    for source, place in SOURCES.items():
        ignore = shutil.ignore_patterns("__pycache__", "*.png", "*.so")
        shutil.copytree(
            CLONE / source, target / place, ignore=ignore, dirs_exist_ok=True
        )
    shutil.copy(CLONE / "pyproject.toml", target)


def compile_kernel(root: Path) -> None:
    """Compile the kernel for aarch64, with the headers of this machine's Python."""
    flags = "-std=c11 -O3 -ffp-contract=off -shared -fPIC"
    sources = sorted((CLONE / KERNEL).glob("*.c"))
    include = f"-I{sysconfig.get_paths()['include']}"
    target = root / "src" / KERNEL / "_native.abi3.so"
    command = [COMPILER, *flags.split(), include, *sources, "-o", target]
    subprocess.run(command, check=True)


def emulated(root: Path, *arguments: str) -> list[str]:
    """Return the command that runs Python on the emulated processor."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "QEMU_CPU": PROCESSOR,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/site:/src",
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    pairs = [f"{key}={value}" for key, value in environment.items()]
    # Some tests read of themselves in /proc.
    mounted = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    inside = ["unshare", "--mount", "sh", "-c", mounted, str(root)]
    python = [f"/{EMULATOR}", "/usr/bin/python3.11"]
    return ["env", "-i", *pairs, *inside, *python, *arguments]


_SKIPPED = [f"--deselect=tests/sync/{test}" for test in NEEDS_PROCESSES]


def run_suite(root: Path, name: str) -> tuple[str, float]:
    """Run a suite there; return pytest's summary and the seconds it took."""
    code = (
        "import os, sys, pytest; os.chdir('/src'); "
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
    )
    start = time.monotonic()
    log = root.parent / f"{name.partition(' ')[0]}.log"
    with log.open("wb") as out:
        done = subprocess.run(
            emulated(root, "-c", code, *_SKIPPED, *SUITES[name]),
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    seconds = time.monotonic() - start
    printed = log.read_text(encoding="utf-8", errors="replace")
    print(printed[-4000:], flush=True)
    found = re.findall(r"^(\d+ (?:passed|failed).*?) in ", printed, re.MULTILINE)
    return (found[-1] if found else f"ended with {done.returncode}"), seconds


def write_table(
    root: Path,
    results: dict[str, tuple[str, float]],
    here: dict[str, Any],
    there: dict[str, Any],
) -> None:
    """Write what passed, and which frames the two processors write alike."""
    lines = [
        "# aarch64 under emulation",
        "",
        "Tests on a Debian 12 for aarch64, under qemu-user's",
        f"`{PROCESSOR}`: not run on a device. Golden frames were written on x86-64.",
        "",
        "| tests | result | seconds |",
        "| --- | --- | --: |",
    ]
    lines += [f"| {n} | {told} | {s:.0f} |" for n, (told, s) in results.items()]
    frames = _alike(here, there, "frames")
    arrays = _alike(here, there, "arrays")
    lines += [
        "",
        "Both processors encode the same arrays, all rounds of a case after each",
        "other, and decode the frames of x86-64. The format promises that every",
        "machine decodes a frame alike (`rotated`: within what its rotation rounds),",
        "not that every machine writes the same one.",
        "",
        f"Of {len(here)} cases {sum(frames.values())} are written alike to the bit,",
        f"and {sum(arrays.values())} read alike to the bit. The others:",
        "",
        "| case | written alike | read alike |",
        "| --- | --- | --- |",
    ]
    words = {True: "yes", False: "no"}
    lines += [
        f"| `{name}` | {words[frames[name]]} | {words[arrays[name]]} |"
        for name in here
        if not (frames[name] and arrays[name])
    ]
    version = subprocess.run(
        [root / EMULATOR, "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    lines += ["", describe("sudo python benchmarks/aarch64.py --folder FOLDER")]
    lines += [f"Emulated by {version}.", ""]
    TABLE.write_text("\n".join(lines), encoding="utf-8")


def _alike(here: dict[str, Any], there: dict[str, Any], kind: str) -> dict[str, bool]:
    return {name: here[name][kind] == there[name][kind] for name in here}


def _output(command: list[Any]) -> str:
    return subprocess.run(
        command, cwd=CLONE, capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main()
