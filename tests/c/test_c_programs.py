"""Compile each C program of this folder, with and without the vector versions, and run it; it exits with 0 or says what failed."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.source import ROOT

HERE = Path(__file__).parent
COMPILER = shlex.split(os.environ.get("CC") or shutil.which("cc") or "cc")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs use mmap")


@pytest.mark.parametrize("flags", [[], ["-DSOTH_SCALAR_ONLY"]], ids=["vector", "scalar"])
@pytest.mark.parametrize("program", sorted(path.stem for path in HERE.glob("*.c")))
def test_program(program: str, flags: list[str], tmp_path: Path) -> None:
    command = [*COMPILER, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'ext'}", *flags]
    subprocess.run([*command, "-o", tmp_path / program, HERE / f"{program}.c"], check=True)
    result = subprocess.run([tmp_path / program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr or f"ended by signal {-result.returncode}: it read outside its input"


def test_every_header_has_its_program() -> None:
    headers = {path.stem for path in (ROOT / "ext").glob("*.h")}
    programs = {path.stem for path in HERE.glob("*.c")}
    assert headers <= programs, f"without a program in tests/c: {sorted(headers - programs)}"
