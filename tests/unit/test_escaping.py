"""What a peer chose is shown in one line, and acts on no terminal."""

import ast
import logging
import re

import pytest

from soth_mitm.escaping import get_logger, shown, shown_traceback
from support.source import ROOT

HOSTILE = "a\n13:37:00 GET https://forged 200\r\x1b]0;t\x07\x9b2J\u2028\u202e\u2066\ufeff\udcff\x7f\x00b"


@pytest.mark.parametrize("text", ["", "curl", "naïve ü 東京", "C:\\x y", "‘q’ — …"])
def test_what_is_printable_stays(text: str) -> None:
    assert shown(text) is text


def test_everything_else_is_escaped() -> None:
    text = shown(HOSTILE)
    assert text.isprintable()
    assert text.startswith("a\\n13:37:00 GET") and "\\x1b]0;t\\x07\\x9b2J\\u2028\\u202e\\u2066\\ufeff\\udcff\\x7f\\x00b" in text
    for number in range(0x110000):
        assert shown(chr(number)).isprintable()


class Odd(Exception):
    """Its own repr is as hostile as its text."""

    def __repr__(self) -> str:
        return HOSTILE


@pytest.mark.parametrize("form", ["%s", "%r"])
@pytest.mark.parametrize("argument", [HOSTILE, Odd(HOSTILE), ValueError(HOSTILE), [HOSTILE]], ids=["str", "odd", "error", "list"])
def test_log_messages_are_one_line(caplog: pytest.LogCaptureFixture, form: str, argument: object) -> None:
    get_logger("soth_mitm.proxy").warning(f"it says {form}, %d times in %g s", argument, 3, 0.5)
    (record,) = caplog.records
    assert record.getMessage().isprintable() and record.getMessage().endswith(", 3 times in 0.5 s")


def test_tracebacks_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    try:
        try:
            raise ValueError(HOSTILE)
        except ValueError as error:
            raise Odd(HOSTILE) from error
    except Odd as error:
        get_logger("soth_mitm.proxy").warning("failed", exc_info=error)
        text = shown_traceback(error)
    assert text in caplog.text
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("13:37") for line in lines)
    assert sum("13:37" in line for line in lines) == 2
    assert lines[0] == "Traceback (most recent call last):" and "The above exception was the direct cause" in text


def test_every_logger_of_the_package_escapes() -> None:
    found = []
    for path in (ROOT / "src" / "soth_mitm").rglob("*.py"):
        if path.name == "escaping.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "getLogger":
                found.append(f"{path.name}:{node.lineno}")
    assert found == []
    assert all(
        logger.filters
        for name, logger in logging.root.manager.loggerDict.items()
        if re.match(r"soth_mitm\.", name) and isinstance(logger, logging.Logger)
    )
