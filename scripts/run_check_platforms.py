"""Compile the C of every extension module for platforms that this machine is not: scripts/check-platforms [MODULE ...].

Zig's C compiler comes as a package from PyPI, with the headers of each platform's C library. Python's own headers are this machine's: they
are the same everywhere but for `pyconfig.h`, which is written here for Windows. Objects are compiled and thrown away; nothing is linked.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prepare import ROOT, Stamp, make_environment, require, step

ENVIRONMENT = ROOT / ".venv-platforms"
GENERATED = ROOT / "build/platforms"
NEEDS = ("Cython>=3.1", "setuptools>=77", "ziglang>=0.13")
TARGETS = ("aarch64-linux-gnu", "aarch64-macos", "x86_64-windows-gnu")
FLAGS = ("-std=c11", "-Wall", "-Werror=implicit-function-declaration", "-Wno-unused-function", "-O1", "-DSOTH_MITM_LEDGER=0")

# What Python's headers ask of a 64-bit Windows, where `long` has 32 bits and `wchar_t` has 16.
WINDOWS_CONFIG = """
#ifndef Py_CONFIG_H
#define Py_CONFIG_H
#include <io.h>
#define MS_WIN32
#define MS_WIN64
#define MS_WINDOWS
#define NT_THREADS
#define WITH_THREAD
#define PLATFORM "win32"
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_TIME_T 8
#define SIZEOF_OFF_T 4
#define SIZEOF_FPOS_T 8
#define SIZEOF_PID_T 4
#define ALIGNOF_SIZE_T 8
#define ALIGNOF_MAX_ALIGN_T 8
#define HAVE_DECLSPEC_DLL 1
#define HAVE_UINTPTR_T 1
#define HAVE_STDDEF_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_ERRNO_H 1
#define HAVE_FCNTL_H 1
#define HAVE_IO_H 1
typedef __int64 Py_ssize_t;
#define HAVE_PY_SSIZE_T 1
#define PY_SSIZE_T_MAX 9223372036854775807LL
#endif
"""

# Run with the environment's Python: `setup.py` says what the modules are and with which directives they are compiled.
GENERATE = """
import runpy, sys
from Cython.Build import cythonize
recipe = runpy.run_path("setup.py", run_name="setup")
wanted = set(sys.argv[2:])
short = lambda name: name.removeprefix("soth_mitm.").removeprefix("_dataplane.")
modules = [each for each in recipe["extension_modules"]() if not wanted or short(each.name) in wanted]
made = cythonize(modules, build_dir=sys.argv[1], compiler_directives=recipe["DIRECTIVES"], include_path=["src"], quiet=True)
print("\\n".join(source for each in made for source in each.sources))
"""


def prepare_environment() -> Path:
    """Make the environment with Cython and Zig in it, and return its Python."""
    python = make_environment(ENVIRONMENT)
    needs = " ".join(NEEDS)
    if not Stamp(ENVIRONMENT).holds("needs", needs):
        require("install Cython and Zig", [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *NEEDS])
        Stamp(ENVIRONMENT).note("needs", needs)
    return python


def headers_for_windows(folder: Path) -> Path:
    """Copy Python's headers, with Windows's `pyconfig.h` in the place of this machine's."""
    shutil.copytree(sysconfig.get_path("include"), folder)
    (folder / "pyconfig.h").write_text(WINDOWS_CONFIG)
    return folder


def main(wanted: list[str]) -> int:
    """Compile the modules named, or all; the exit code is 1 if one of them did not compile somewhere."""
    python = prepare_environment()
    made = subprocess.run([python, "-c", GENERATE, GENERATED, *wanted], cwd=ROOT, capture_output=True, text=True)
    if made.returncode or not made.stdout.strip():
        print(made.stderr or f"no such module: {' '.join(wanted)}", file=sys.stderr)
        return 1
    sources = made.stdout.split()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        ours, windows = sysconfig.get_path("include"), headers_for_windows(Path(folder) / "windows")

        def compiles(target: str, source: str) -> bool:
            headers = windows if "windows" in target else ours
            module = ".".join(Path(source).relative_to(GENERATED / "src/soth_mitm").with_suffix("").parts)
            out = Path(folder) / f"{module}-{target}.o"
            command: list[str | Path] = [
                python,
                "-m",
                "ziglang",
                "cc",
                "-target",
                target,
                f"-I{headers}",
                "-Iext",
                *FLAGS,
                "-c",
                source,
                "-o",
                out,
            ]
            return step(f"{module} for {target}", command)

        verdicts = list(pool.map(lambda pair: compiles(*pair), [(target, source) for source in sources for target in TARGETS]))
    print(f"{sum(verdicts)} of {len(verdicts)} objects compiled ({len(sources)} modules, {len(TARGETS)} platforms)")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
