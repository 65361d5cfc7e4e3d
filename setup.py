"""The compiled kernel, which is left out where it cannot be built.

Everything else about the package is in pyproject.toml.
"""

import os
import sysconfig

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

KERNEL = "flwr_caesar/codec/kernel"
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-g0"]

kernel = Extension(
    "flwr_caesar.codec.kernel._native",
    sources=[
        f"{KERNEL}/{name}.c"
        for name in (
            *("module", "rans", "integers", "scales", "quantise"),
            *("groups", "block"),
        )
    ],
    depends=[
        f"{KERNEL}/{name}.h"
        for name in ("loops", "pairwise", "rans_avx2", "arguments", "module_block")
    ],
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


class Wheel(bdist_wheel):
    """A wheel for every machine where the kernel was not built."""

    def run(self):
        """Build the kernel, and only then say what the wheel is for."""
        if self.distribution.has_ext_modules():
            self.run_command("build_ext")
            place = self.get_finalized_command("build_ext")
            if not os.path.exists(place.get_ext_fullpath(kernel.name)):
                self.distribution.ext_modules = []
                self.root_is_pure = True
        super().run()


setup(
    cmdclass={"bdist_wheel": Wheel},
    ext_modules=[kernel] if wanted else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if wanted else {},
)
