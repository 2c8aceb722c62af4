"""Each pitfall of docs/http2.md has a test that names its number, in its name or by `@pytest.mark.rule`."""

import re

from support.source import ROOT

PITFALLS = 63
ROW = re.compile(r"^\| (\d+) \| .+ \|$", re.MULTILINE)
# test_rule_9_..., test_rules_1_and_15_...
IN_NAMES = re.compile(r"^ *(?:async )?def test_rules?_(\d+)(?:_and_(\d+))?_", re.MULTILINE)
IN_MARKS = re.compile(r"^ *@pytest\.mark\.rule\(([\d, ]+)\)", re.MULTILINE)


def listed(text: str) -> list[int]:
    """Return the numbers of the table."""
    return [int(number) for number in ROW.findall(text)]


def named(text: str) -> set[int]:
    """Return the numbers that the tests of a file name."""
    names = [number for pair in IN_NAMES.findall(text) for number in pair if number]
    marks = [number for numbers in IN_MARKS.findall(text) for number in numbers.split(",")]
    return {int(number) for number in names + marks}


def test_every_pitfall_is_listed() -> None:
    assert listed((ROOT / "docs/http2.md").read_text(encoding="utf-8")) == list(range(1, PITFALLS + 1))


def test_every_pitfall_has_a_test() -> None:
    found: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= named(path.read_text(encoding="utf-8"))
    assert set(range(1, PITFALLS + 1)) - found == set(), "no test names these"
    assert found - set(range(1, PITFALLS + 1)) == set(), "no pitfall has these numbers"


def test_numbers_are_found() -> None:
    assert named("def test_rule_9_a() -> None:\n    async def test_rules_1_and_15_b():\n") == {9, 1, 15}
    assert named("    @pytest.mark.rule(26, 47)\n    def test_rule() -> None:\ndef test_9_c() -> None:\n") == {26, 47}
    assert listed("| 1 | a |\n| --- | --- |\n| x | b |\n| 2 | c | \n") == [1]
