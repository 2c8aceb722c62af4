"""Compile the loop of a micro benchmark: calls from Python would cost more than what they measure."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def compiled_loop(name: str, folder: Path) -> ModuleType:
    """Compile `name`.pyx, which lies here, in `folder`, against the installed package, and import it."""
    code = f"""
from Cython.Build import cythonize
from setuptools import Extension, setup
source, headers = {str(HERE / f"{name}.pyx")!r}, {str(ROOT / "ext")!r}
module = Extension("{name}", [source], include_dirs=[headers], extra_compile_args=["-O3"])
directives = {{"language_level": 3, "cdivision": True, "boundscheck": False, "wraparound": False, "initializedcheck": False}}
setup(ext_modules=cythonize([module], build_dir=".", compiler_directives=directives), script_args=["-q", "build_ext", "--build-lib", "."])
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, env={**os.environ, "PYTHONPATH": ""})
    (library,) = folder.glob(f"{name}.*.so")
    spec = importlib.util.spec_from_file_location(name, library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
