"""docs/flows.md has every field and flag of the filter language, with the meaning that the code gives."""

import re

from soth_mitm.observe.filter_fields import FIELDS, FLAGS
from support.source import ROOT

PAGE = (ROOT / "docs/flows.md").read_text(encoding="utf-8")


def rows(title: str) -> dict[str, str]:
    """Return a table of the page: what is in its first column, and in its second."""
    table = PAGE[PAGE.index(f"\n| {title} | is |\n") :].strip().split("\n\n")[0]
    found = (re.fullmatch(r"\| `([^`]+)` \| (.*) \|", line) for line in table.splitlines()[2:])
    return {match[1]: match[2] for match in found if match is not None}


def test_every_field_is_on_the_page() -> None:
    found = rows("field")
    assert found.pop("header.NAME")
    assert found == {name: field.meaning for name, field in FIELDS.items()}


def test_every_flag_is_on_the_page() -> None:
    assert rows("flag") == {f"is:{name}": meaning for name, meaning in FLAGS.items()}
