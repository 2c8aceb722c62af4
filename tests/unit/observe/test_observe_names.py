"""`soth_mitm.observe`: its names are there, and are loaded when they are asked for."""

import subprocess
import sys

import pytest

from soth_mitm import observe
from support.source import PACKAGE


def test_every_name_is_there_and_in_the_stub() -> None:
    stub = (PACKAGE / "observe/__init__.pyi").read_text(encoding="utf-8") if (PACKAGE / "observe/__init__.pyi").is_file() else ""
    for name in observe.__all__:
        assert getattr(observe, name) is not None
        assert name in dir(observe)
        assert not stub or f'"{name}",' in stub


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="no attribute 'NoSink'"):
        getattr(observe, "NoSink")  # noqa: B009


def test_the_package_loads_no_sink() -> None:
    code = "import sys, soth_mitm; print([name for name in sys.modules if name in sys.argv[1:]])"
    heavy = ["soth_mitm.observe.ndjson", "soth_mitm.observe.har", "soth_mitm.observe.otel", "sqlite3", "opentelemetry", "soth_mitm.llm"]
    ran = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
