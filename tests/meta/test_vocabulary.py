"""The vocabulary of docs/glossary.md: words that it calls retired are no identifiers of the package any more."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from support.source import PACKAGE, ROOT, named, other_identifiers, package_files, python_identifiers

GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


class Retired(NamedTuple):
    """One retired word, what is said instead, and where it is refused: paths below the package, "" for all of it."""

    word: str
    successor: str
    places: tuple[str, ...]


def retired_words(text: str) -> list[Retired]:
    """Read the table of retired words, the last one of the glossary."""
    rows = [line.strip("|").split("|") for line in text[text.index("\n| retired |") :].split("\n\n")[0].strip().splitlines()[2:]]
    found = []
    for retired, successor, where in rows:
        places = tuple(re.findall(r"`([^`]+)`", where)) or ("",)
        found += [Retired(word, successor.strip(), places) for word in re.findall(r"`([^`]+)`", retired)]
    return found


def retired_in(path: str, identifiers: set[str], words: list[Retired]) -> list[str]:
    """Return which of the identifiers of a file are retired there, each with its successor. `path` is below the package."""
    return sorted(
        f"{word}: {successor}"
        for word, successor, places in words
        if word in identifiers and any(path.startswith(place) for place in places)
    )


WORDS = retired_words(GLOSSARY)


@pytest.mark.parametrize("path", package_files(".py", ".pyi", ".pyx", ".pxd"), ids=named)
def test_no_retired_word(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    identifiers = python_identifiers(code) if path.suffix in (".py", ".pyi") else other_identifiers(code, path.suffix)
    assert retired_in(path.relative_to(PACKAGE).as_posix(), identifiers, WORDS) == [], "docs/glossary.md has the words"


def test_places_of_retired_words_exist() -> None:
    places = {place for word in WORDS for place in word.places if place}
    files = [path.relative_to(PACKAGE).as_posix() for path in package_files(".py", ".pyx")]
    assert sorted(place for place in places if not any(file.startswith(place) for file in files)) == []


def test_a_word_is_retired_once() -> None:
    words = [word.word for word in WORDS]
    assert sorted(word for word in set(words) if words.count(word) > 1) == []


def test_places_of_terms_exist() -> None:
    terms = GLOSSARY[: GLOSSARY.index("## Retired words")]
    rows = [
        line.strip("| ").split(" | ") for line in terms.splitlines() if line.startswith("| ") and not line.startswith(("| term", "| ---"))
    ]
    places = {place for row in rows for place in re.findall(r"`([^`]+)`", row[2])}
    known = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*")}
    known |= {name.rpartition(".")[0] for name in known} | {f"{name}/" for name in known}
    assert sorted(places - known) == []


def test_vocabulary_test_can_fail() -> None:
    table = (
        "text\n\n| retired | use | in |\n| --- | --- | --- |\n"
        "| `inbox`, `outbox` | `read_buffer` | |\n| `held` | `paused` | `tls`, `proxy/x` |\n"
    )
    words = retired_words(table)
    assert words == [
        Retired("inbox", "`read_buffer`", ("",)),
        Retired("outbox", "`read_buffer`", ("",)),
        Retired("held", "`paused`", ("tls", "proxy/x")),
    ]
    assert retired_in("a.py", {"inbox", "held", "inboxes"}, words) == ["inbox: `read_buffer`"]
    assert retired_in("proxy/x.py", {"held"}, words) == ["held: `paused`"] and not retired_in("proxy/y.py", {"held"}, words)
