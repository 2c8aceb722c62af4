"""Lint and type-check the tree with the tools of its environment. A missing tool is a failure, never a skip."""

import sys
from pathlib import Path

from prepare import ROOT, prepare, step, tool_environment, variant_name


def checks(python: Path) -> list[tuple[str, list[str | Path]]]:
    """List what is checked: a title and a command each."""
    cython = sorted(path for suffix in ("pyx", "pxd") for path in (ROOT / "src").rglob(f"*.{suffix}"))
    return [
        ("ruff check", [python, "-m", "ruff", "check", "--quiet", "."]),
        ("ruff format --check", [python, "-m", "ruff", "format", "--check", "--quiet", "--diff", "."]),
        ("cython-lint", [python.parent / "cython-lint", *cython]),
        ("mypy, the package", [python, "-m", "mypy"]),
        ("mypy, scripts", [python, "-m", "mypy", *sorted((ROOT / "scripts").glob("*.py"))]),
        ("mypy, bench", [python, "-m", "mypy", ROOT / "bench"]),
    ]


def check(python: Path) -> bool:
    """Run every check, so that one run shows all there is to mend."""
    return all([step(title, command, tool_environment(python)) for title, command in checks(python)])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("scripts/check takes no arguments")
    sys.exit(0 if check(prepare(variant_name())) else 1)
