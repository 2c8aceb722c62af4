"""Doubles of the data plane's parts, in Cython as the parts are: compiled against the installed package when a test asks for them.

A double is `tests/doubles/NAME.pyx`. It is test code: no wheel has it. What was compiled is kept in `build/doubles`, by a digest of all
that it was made from.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import soth_mitm
from support.source import ROOT

SITE = Path(soth_mitm.__file__).parents[1]
SWITCHES = ("DEBUG", "SANITIZE", "COVERAGE", "FUZZ")
NO_COMPILER = 77


def load_double(name: str) -> Any:
    """Compile the double where it has not been yet, and import it. The test is skipped where there is no compiler."""
    source = ROOT / "tests" / "doubles" / f"{name}.pyx"
    target = ROOT / "build" / "doubles" / _digest(source) / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.exists():
        _compile(source, target)
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _digest(source: Path) -> str:
    total = hashlib.sha256()
    parts = [source, ROOT / "setup.py", *sorted((SITE / "soth_mitm").rglob("*.pxd")), *sorted((ROOT / "ext").glob("*.h"))]
    switches = "".join(os.environ.get(f"SOTH_MITM_{switch}", "0") for switch in SWITCHES)
    for data in [*(path.read_bytes() for path in parts), sys.version.encode(), switches.encode()]:
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


def _compile(source: Path, target: Path) -> None:
    if importlib.util.find_spec("Cython") is None or importlib.util.find_spec("setuptools") is None:
        pytest.skip("Cython and setuptools are not installed: they compile the doubles")
    work = target.parent / "work"
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, ROOT / "tests/doubles/compile.py", source, work, SITE]
    done = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == NO_COMPILER:
        pytest.skip("there is no C compiler for the doubles")
    assert done.returncode == 0, f"{source.name} does not compile:\n{done.stdout}{done.stderr}"
    (work / target.name).replace(target)
