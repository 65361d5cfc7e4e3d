"""The compiled kernel, which is left out where it cannot be built.

Everything else about the package is in pyproject.toml.
"""

import os
import sysconfig

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
# What switches it off in a process also does here, for a wheel that fits everywhere.
switch = os.environ.get("FLWR_CAESAR_KERNEL", "").lower()
wanted = switch not in ("0", "off", "no", "false")
# Free-threaded Python has no stable ABI, and setuptools refuses to name a wheel by it.
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    wanted = False

setup(
    ext_modules=[kernel] if wanted else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if wanted else {},
)
