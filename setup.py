"""The compiled kernel, which is left out where it cannot be built.

Everything else about the package is in pyproject.toml.
"""

import os

from setuptools import Extension, setup

KERNEL = "flwr_caesar/codec/kernel"
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-g0"]

kernel = Extension(
    "flwr_caesar.codec.kernel._native",
    sources=[
        f"{KERNEL}/{name}.c"
        for name in ("module", "rans", "integers", "scales", "quantise")
    ],
    depends=[f"{KERNEL}/loops.h", f"{KERNEL}/pairwise.h"],
    extra_compile_args=FLAGS,
    py_limited_api=True,
    optional=True,
)
# `FLWR_CAESAR_KERNEL=off` also switches it off here, for a wheel that fits everywhere.
wanted = os.environ.get("FLWR_CAESAR_KERNEL", "").lower() != "off"

setup(
    ext_modules=[kernel] if wanted else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if wanted else {},
)
