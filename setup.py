"""Build the extension modules of ``soth_mitm``.

One list of modules, found from the tree; one dict of directives, so that no ``.pyx`` header can drift from it. The generated C goes
below ``build`` and never into ``src``. Four switches come from the environment and change what is compiled, nothing else does; each
combination has a build directory of its own, since neither Cython nor setuptools would notice that another one is asked for:

``SOTH_MITM_DEBUG=1``     bounds checks, assertions and the debug ledger, no optimisation
``SOTH_MITM_SANITIZE=1``  AddressSanitizer and UBSan (run with the sanitizer runtime preloaded, see tests/README.md)
``SOTH_MITM_COVERAGE=1``  line tracing for coverage.py
``SOTH_MITM_FUZZ=1``      counters for libFuzzer, with clang only (scripts/fuzz)
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

ROOT = Path(__file__).parent
PACKAGE = Path("src/soth_mitm")


def switch(name: str) -> bool:
    """Tell whether the environment turns the build switch ``name`` on."""
    return os.environ.get(f"SOTH_MITM_{name}", "") not in ("", "0")


DEBUG, SANITIZE, COVERAGE, FUZZ = switch("DEBUG"), switch("SANITIZE"), switch("COVERAGE"), switch("FUZZ")

SWITCHES = (("debug", DEBUG), ("sanitize", SANITIZE), ("coverage", COVERAGE), ("fuzz", FUZZ))
VARIANT = "-".join(name for name, on in SWITCHES if on) or "release"
JOBS = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": False,
    "linetrace": COVERAGE,
    "warn.unused": True,
}


def compiler_arguments() -> tuple[list[str], list[str]]:
    """Return the compiler's and the linker's arguments for this platform and these switches."""
    if sys.platform == "win32":
        return (["/Od", "/Zi", "/UNDEBUG"] if DEBUG else ["/O2"]), (["/DEBUG"] if DEBUG else [])
    compile_args = ["-std=c11", "-Wno-unused-function"]
    link_args: list[str] = []
    compile_args += ["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
    if SANITIZE:
        flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
        compile_args += flags
        link_args += flags
    if FUZZ:
        # some optimisation: unlike a debugger, a fuzzer has to be fast
        compile_args += ["-fsanitize=fuzzer-no-link", "-O1", "-g"]
        link_args += ["-fsanitize=fuzzer-no-link"]
    return compile_args, link_args


def extension_modules() -> list[Extension]:
    """Describe one extension per ``.pyx``; all of them depend on every C header, which is cheap and never stale."""
    compile_args, link_args = compiler_arguments()
    macros = [("SOTH_MITM_LEDGER", "1" if DEBUG else "0")]
    if COVERAGE:
        macros.append(("CYTHON_TRACE_NOGIL", "1"))
    headers = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ext").glob("*.h"))
    return [
        Extension(
            ".".join(source.relative_to(ROOT / "src").with_suffix("").parts),
            [str(source.relative_to(ROOT))],
            include_dirs=["ext"],
            depends=headers,
            define_macros=macros,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
        for source in sorted((ROOT / PACKAGE).rglob("*.pyx"))
    ]


# The guard is for platforms where a worker process of cythonize() imports this file again.
if __name__ == "__main__":
    Options.docstrings = True
    # Set by scripts/build, so that we mend what a user with a newer Cython should not stumble over
    Options.warning_errors = switch("WERROR")
    setup(
        ext_modules=cythonize(
            extension_modules(),
            build_dir=f"build/{VARIANT}/cython",
            compiler_directives=DIRECTIVES,
            include_path=["src"],
            nthreads=0 if sys.platform == "win32" else JOBS,
        ),
        options={"build": {"build_base": f"build/{VARIANT}"}, "build_ext": {"parallel": JOBS}},
    )
