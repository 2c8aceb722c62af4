"""The checks of tests/conftest.py find what they are there to find, and nothing else. Each case is a pytest run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.leaks import DESCRIPTORS
from support.source import ROOT


def run(folder: Path, code: str, *options: str) -> tuple[int, str]:
    """Run pytest on a module of its own under the repository's conftest; return the exit code and the output."""
    (folder / "conftest.py").write_bytes((ROOT / "tests/conftest.py").read_bytes())
    (folder / "test_case.py").write_text(code, encoding="utf-8")
    settings = [f"pythonpath={ROOT / 'tests'}", "filterwarnings=default", "timeout=30"]
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-q", *options]
    command += [part for setting in settings for part in ("-o", setting)]
    result = subprocess.run([*command, str(folder)], cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    return result.returncode, result.stdout + result.stderr


linux_only = pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="the system does not list a process's descriptors")


@linux_only
def test_descriptor_left_open_fails_the_module(tmp_path: Path) -> None:
    code, output = run(tmp_path, "import os\nKEPT = []\ndef test_a(): pass\ndef test_b(): KEPT.append(os.open('/dev/null', 0))\n")
    assert code == 1
    assert "(/dev/null) first seen after test_case.py::test_b" in output
    assert "2 passed, 1 error" in output


@linux_only
def test_descriptor_in_a_cycle_is_no_leak(tmp_path: Path) -> None:
    case = "class Cycle: pass\ndef test_a():\n    it = Cycle()\n    it.me, it.file = it, open('/dev/null')\n"
    assert run(tmp_path, case)[0] == 0


@linux_only
def test_descriptor_closed_by_a_thread_is_no_leak(tmp_path: Path) -> None:
    case = "import os, threading\ndef test_a(): threading.Timer(0.2, os.close, [os.open('/dev/null', 0)]).start()\n"
    assert run(tmp_path, case)[0] == 0


@linux_only
def test_sockets_of_module_fixtures_are_no_leak(tmp_path: Path) -> None:
    case = """
import asyncio, pytest, uvloop
pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
async def port():
    async def serve(reader, writer):
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

@pytest.mark.parametrize("turn", [1, 2])
async def test_a(port, turn):
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
"""
    code, output = run(tmp_path, case)
    assert code == 0, output


def test_failure_is_reported_alone(tmp_path: Path) -> None:
    code, output = run(tmp_path, "import os\ndef test_a():\n    kept = open(os.devnull)\n    assert not kept\n")
    assert code == 1
    assert "1 failed in" in output


LEDGER = """
import pytest
from support import leaks

LENT = {}

@pytest.fixture(autouse=True, scope="session")
def ledger():
    leaks.PATIENCE = 0.05
    leaks.ledger = type("Ledger", (), {"counts": lambda: dict(LENT)})
"""


def test_ledger_entry_fails_the_test(tmp_path: Path) -> None:
    case = LEDGER + "def test_a(): LENT['buffers'] = 1\ndef test_b(): LENT.clear()\n"
    code, output = run(tmp_path, case)
    assert code == 1
    assert "test_case.py::test_a ended with {'buffers': 1} in the ledger" in output
    assert "2 passed, 1 error" in output


def test_shared_resources_are_read_when_the_module_ends(tmp_path: Path) -> None:
    case = LEDGER + "pytestmark = pytest.mark.shares_resources\ndef test_a(): LENT['buffers'] = 1\ndef test_b(): LENT['buffers'] = 0\n"
    assert run(tmp_path, case)[0] == 0
    code, output = run(tmp_path, case.replace("LENT['buffers'] = 0", "pass"))
    assert code == 1
    assert "test_case.py ended with {'buffers': 1} in the ledger" in output


def test_crash_leaves_the_name_of_its_test(tmp_path: Path) -> None:
    code, output = run(tmp_path, "import os\ndef test_a(): pass\ndef test_b(): os.abort()\n", "-o", "cache_dir=cache")
    assert code not in (0, 1)
    assert "test_b" in output
    assert (tmp_path / "cache/d/running/test").read_text() == "test_case.py::test_b"
