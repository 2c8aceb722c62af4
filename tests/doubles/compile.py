"""Compile one double, with the directives and switches of setup.py: compile.py SOURCE DIRECTORY SITE.

A program of its own: it must not load the package, which may be built with a sanitizer. Exit code 77: there is no C compiler.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Distribution, Extension

ROOT = Path(__file__).resolve().parents[2]
NO_COMPILER = 77


def main(source: Path, work: Path, site: Path) -> None:
    """Leave the extension module in `work`; `site` is where the package is installed."""
    spec = importlib.util.spec_from_file_location("setup_of_the_package", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    compiler = os.environ.get("CC", sysconfig.get_config_var("CC") or "").split()
    if os.name == "posix" and (not compiler or shutil.which(compiler[0]) is None):
        sys.exit(NO_COMPILER)
    compile_args, link_args = rules.compiler_arguments()
    extension = Extension(
        source.stem,
        [str(source)],
        include_dirs=[str(ROOT / "ext")],
        define_macros=[("SOTH_MITM_LEDGER", "1" if rules.DEBUG else "0")],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    modules = cythonize(
        [extension],
        build_dir=str(work),
        include_path=[str(site)],
        compiler_directives={**rules.DIRECTIVES, "warn.unused": False, "linetrace": False},
    )
    command = Distribution({"name": "doubles", "ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(work)
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
