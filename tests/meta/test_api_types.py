"""The types of the public API, as a strict type checker sees them in user code."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TYPING = ROOT / "tests" / "typing"


def check(path: Path, cache: Path) -> list[int]:
    """Return the lines of `path` in which mypy finds an error."""
    command = [sys.executable, "-m", "mypy", "--strict", f"--config-file={os.devnull}", f"--cache-dir={cache}", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "MYPYPATH": str(ROOT / "src")}, check=False)
    assert run.returncode in (0, 1), run.stderr
    found = re.findall(r"^(.+?):(\d+): error: ", run.stdout, re.MULTILINE)
    assert all(Path(name).name == path.name for name, _ in found), run.stdout
    return sorted({int(line) for _, line in found})


def test_correct_code_has_no_errors(tmp_path: Path) -> None:
    assert check(TYPING / "api.py", tmp_path) == []


def test_every_mistake_is_found_and_nothing_else(tmp_path: Path) -> None:
    path = TYPING / "mistakes.py"
    marked = [number for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.endswith("# error")]
    assert check(path, tmp_path) == marked != []
