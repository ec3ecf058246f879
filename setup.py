"""Build lc_engine._native: the kernels of csrc/ once per instruction set, chosen at run time."""

import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

CSRC = Path("csrc")
# Files that hold plain kernels: no Python, no allocation, no standard containers, so that no inline
# function compiled for AVX-512 can be picked by the linker for the code that runs everywhere.
KERNELS = sorted(CSRC.glob("*/kernel.cpp"))
BINDINGS = sorted(set(CSRC.rglob("*.cpp")) - set(KERNELS))
ISA_FLAGS: dict[str, list[str]] = {"baseline": []}
# The platform that is built for, which a cross-compilation names, not the one that builds.
if sysconfig.get_platform().endswith(("x86_64", "amd64")):
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
    # -O3 unless CXXFLAGS says otherwise, as a compiler takes the last -O that it is given.
    LEVEL = [] if "-O" in os.environ.get("CXXFLAGS", "") else ["-O3"]
    OPTIMISE = [*LEVEL, "-fno-math-errno", "-ffp-contract=off", "-Wno-maybe-uninitialized"]


class StraySymbolError(Exception):
    """A kernel's object defines a symbol that the linker could share with another object's."""


def check_symbols(listing: str, kernel: str, isa: str) -> None:
    """Check that a kernel compiled for an instruction set keeps its code to itself.

    A weak symbol compiled for AVX-512 could become the one copy that every processor runs.

    Args:
        listing: the symbols that the kernel's object defines, as `nm -C` prints them.
        kernel: its source, for the error.
        isa: the instruction set.

    Raises:
        StraySymbolError: naming a symbol that is weak or unique, or that is global and outside of
            lc::<isa>; or there is no global symbol.
    """
    symbols = [line.split(maxsplit=2)[1:] for line in listing.splitlines()]
    for kind, name in symbols:
        if kind in "WVwvu":
            raise StraySymbolError(f"{kernel} for {isa} has the weak symbol {name}")
        if kind.isupper() and not name.startswith(f"lc::{isa}::"):
            raise StraySymbolError(f"{kernel} for {isa} has {name} outside of lc::{isa}")
    if not any(kind.isupper() for kind, _ in symbols):
        raise StraySymbolError(f"{kernel} for {isa} has no global symbol")


def symbols_of(compiled: str) -> str | None:
    """Return what `nm` (or $NM) lists of an object, or None where there is no `nm`."""
    nm = os.environ.get("NM", "nm")
    if shutil.which(nm) is None:
        return None
    command = [nm, "-C", "--defined-only", compiled]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@functools.cache
def included(source: Path) -> frozenset[Path]:
    """Return the files of csrc/ that a file includes, and those that they include."""
    names = re.findall(r'^#include "(.+)"', source.read_text(encoding="utf-8"), re.MULTILINE)
    headers = [CSRC / name for name in names]
    return frozenset(headers).union(*map(included, headers))


def is_fresh(compiled: Path, source: Path) -> bool:
    """Return whether an object is newer than all that it was compiled from."""
    if not compiled.exists():
        return False
    inputs = {source, Path(__file__), *included(source)}
    return compiled.stat().st_mtime > max(path.stat().st_mtime for path in inputs)


class BuildNative(build_ext):
    """Compile the kernels per instruction set; without a compiler, install without them."""

    def build_extension(self, ext):
        jobs = [(kernel, isa) for kernel in KERNELS for isa in ISA_FLAGS]
        jobs += [(binding, None) for binding in BINDINGS]
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda job: self.object_of(ext, *job), jobs))
            # Linked again where an object is newer.
            ext.sources, ext.depends, ext.extra_objects = [], objects, objects
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError) as error:
            print(
                f"lc_engine: the C++ core could not be built ({error}). The package is installed "
                "without it; on a CPU the plain-torch path will be used, and says so when it runs.",
                file=sys.stderr,
            )

    def object_of(self, ext, source, isa):
        """Compile a file unless its object is fresh; return the object. `isa`: of a kernel."""
        folder = str(Path(self.build_temp, isa or "bindings"))
        (compiled,) = self.compiler.object_filenames([str(source)], output_dir=folder)
        if self.force or not is_fresh(Path(compiled), source):
            self.compiler.compile(
                [str(source)],
                output_dir=folder,
                macros=[("LC_ISA", isa)] if isa else ext.define_macros,
                include_dirs=ext.include_dirs,
                extra_postargs=[*ext.extra_compile_args, *ISA_FLAGS.get(isa, [])],
            )
        # A sanitizer adds symbols of its own; its build runs on the machine that made it alone.
        ours = "-fsanitize" not in os.environ.get("CXXFLAGS", "")
        if isa and ours and (listing := symbols_of(compiled)) is not None:
            check_symbols(listing, str(source), isa)
        return compiled


native = Pybind11Extension(
    "lc_engine._native",
    [str(path) for path in BINDINGS],
    include_dirs=[str(CSRC)],
    depends=sorted(map(str, [*KERNELS, *CSRC.rglob("*.h")])),
    define_macros=[(f"LC_HAVE_{isa.upper()}", "1") for isa in ISA_FLAGS],
    cxx_std=17,
    optional=True,
)
native.extra_compile_args += OPTIMISE

if __name__ == "__main__":
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
