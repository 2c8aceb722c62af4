"""The .pyi of every extension module says what the compiled module has: mypy's stubtest compares them at run time."""

import subprocess
import sys
from pathlib import Path

import pytest

# What Cython adds to a module or class, and __init__, whose arguments a compiled class does not tell; nothing else is ever allowed here
ALLOWED = r"""
.*\.__init__
.*\.__test__
.*\.__reduce_cython__
.*\.__setstate_cython__
.*\.__pyx_capi__
.*\.__pyx_vtable__
.*\.__pyx_unpickle_\w+
"""


def stub_faults(package: str, folder: Path) -> str:
    """Return what stubtest says of a package, run where it finds that package as `folder`'s Python does; "" if all is well."""
    allowed = folder / "allowed.txt"
    allowed.write_text(ALLOWED, encoding="utf-8")
    # disjoint bases: that two Cython classes cannot be inherited together is nothing a user of ours would try
    options = ["--allowlist", str(allowed), "--ignore-unused-allowlist", "--ignore-disjoint-bases"]
    command = [sys.executable, "-m", "mypy.stubtest", package, *options]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return result.stdout + result.stderr if result.returncode else ""


@pytest.mark.parametrize("package", ["soth_mitm._dataplane", "soth_mitm.process._linux"])
def test_stubs_agree_with_the_modules(package: str, tmp_path: Path) -> None:
    faults = stub_faults(package, tmp_path)
    assert not faults, faults


def test_stub_test_can_fail(tmp_path: Path) -> None:
    (tmp_path / "head.py").write_text("def parse(data, limit): ...\n", encoding="utf-8")
    (tmp_path / "head.pyi").write_text("def parse(data: bytes, size: int) -> None: ...\ndef invented() -> None: ...\n", encoding="utf-8")
    faults = stub_faults("head", tmp_path)
    assert "head.parse is inconsistent" in faults
    assert "head.invented is not present at runtime" in faults
