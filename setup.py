"""Build lc_engine._native: the kernels of csrc/ once per instruction set, chosen at run time."""

import platform
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

# Files that hold plain kernels: no Python, no allocation, no standard containers, so that no inline
# function compiled for AVX-512 can be picked by the linker for the code that runs everywhere.
KERNELS = sorted(str(path) for path in Path("csrc").glob("*/kernel.cpp"))
ISA_FLAGS: dict[str, list[str]] = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    if sys.platform == "win32":
        ISA_FLAGS |= {"avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"]}
    else:
        ISA_FLAGS |= {
            "avx2": ["-march=x86-64-v3"],
            "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
            "avx512_bf16": ["-march=x86-64-v4", "-mprefer-vector-width=512", "-mavx512bf16"],
        }
if sys.platform == "win32":
    OPTIMISE = ["/O2"]
else:
    # GCC 12 warns of its own AVX-512 header.
    OPTIMISE = ["-O3", "-fno-math-errno", "-ffp-contract=off", "-Wno-maybe-uninitialized"]


class BuildNative(build_ext):
    """Compile the kernels per instruction set; without a compiler, install without them."""

    def build_extension(self, ext):
        try:
            for isa, flags in ISA_FLAGS.items():
                ext.extra_objects += self.compiler.compile(
                    KERNELS,
                    output_dir=str(Path(self.build_temp, isa)),
                    macros=[("LC_ISA", isa)],
                    include_dirs=["csrc"],
                    extra_postargs=[*ext.extra_compile_args, *OPTIMISE, *flags],
                    depends=ext.depends,
                )
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError) as error:
            print(
                f"lc_engine: the C++ core could not be built ({error}). The package is installed "
                "without it; on a CPU the plain-torch path will be used, and says so when it runs.",
                file=sys.stderr,
            )


native = Pybind11Extension(
    "lc_engine._native",
    sorted({str(path) for path in Path("csrc").rglob("*.cpp")} - set(KERNELS)),
    include_dirs=["csrc"],
    depends=sorted([*KERNELS, *(str(path) for path in Path("csrc").rglob("*.h"))]),
    define_macros=[(f"LC_HAVE_{isa.upper()}", "1") for isa in ISA_FLAGS],
    cxx_std=17,
    optional=True,
)
native.extra_compile_args += OPTIMISE

setup(
    packages=[
        *find_packages(include=["lc_engine", "lc_engine.*"]),
        "lc_engine.kernels",
        *(f"lc_engine.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"lc_engine.kernels": "kernels"},
    ext_modules=[native],
    cmdclass={"build_ext": BuildNative},
)
