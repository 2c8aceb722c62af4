"""Names say what a thing is (docs/architecture.md): endings, companions, words."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.source import PACKAGE, ROOT, named, other_identifiers, package_files, python_identifiers

BANNED_ENDINGS = ("_helpers", "_utils", "_common", "_support", "_impl", "_misc", "_ops")

# word in an identifier -> what it is called here
BANNED_WORDS = {
    "downstream": "client",
    "ingress": "to_upstream or to_client",
    "egress": "to_upstream or to_client",
    "acceptor": "listener",
    "passthru": "tunnel",
    "whitelist": "allowed",
    "blacklist": "blocked",
}

# Folders and files whose Cython ends within 100 columns; enter new ones. Elsewhere, and in what ruff formats, it is 140.
NARROW = (
    "_dataplane/memory/",
    "_dataplane/transport/",
    "_dataplane/websocket/",
    "_dataplane/http1/client",
    "_dataplane/http1/connection_",
    "_dataplane/http1/encoder",
    "_dataplane/http1/server",
    "_dataplane/http1/stream",
    "_dataplane/wire/forwards",
    "process/_linux/",
)
NARROW_COLUMNS = 100

SCRIPT_VERBS = {
    "annotate",
    "bench",
    "break",
    "build",
    "check",
    "demo",
    "docs",
    "find",
    "fuzz",
    "prepare",
    "release",
    "run",
    "test",
}


def bad_ending(path: Path) -> str:
    """Return what is wrong with a file's or folder's name."""
    stem = path.name.partition(".")[0]
    return f"{path.name}: name it after what it holds, not `{stem[stem.rindex('_') :]}`" if stem.endswith(BANNED_ENDINGS) else ""


def missing_companions(names: Iterable[str]) -> list[str]:
    """Return the declaration and stub files that a folder with these file names lacks."""
    present = set(names)
    stems = sorted(name.removesuffix(".pyx") for name in present if name.endswith(".pyx"))
    return [stem + suffix for stem in stems for suffix in (".pxd", ".pyi") if stem + suffix not in present]


def bad_script(name: str) -> str:
    """Return what is wrong with the name of a script."""
    verb = re.split(r"[-_.]", name)[0]
    if re.search(r"\d|phase|stage|milestone|sprint|final", name):
        return f"scripts/{name}: a script is named after what it does, not after when"
    return "" if verb in SCRIPT_VERBS else f"scripts/{name}: does not begin with a verb of SCRIPT_VERBS in tests/meta/test_layout.py"


def banned_words(identifiers: Iterable[str]) -> list[str]:
    """Return the identifiers that use a word with another meaning here, and the word to use."""
    found = ((name, word) for name in sorted(identifiers) for word in BANNED_WORDS if word in name.lower())
    return [f"{name}: we say {BANNED_WORDS[word]}" for name, word in found]


OWN_FILES = package_files(".py", ".pyi", ".pyx", ".pxd") + sorted((ROOT / "ext").glob("*.h"))
TEST_FILES = sorted(path for path in (ROOT / "tests").rglob("*") if path.suffix in (".py", ".c"))


@pytest.mark.parametrize("path", OWN_FILES, ids=named)
def test_source_file(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert not bad_ending(path)
    words = python_identifiers(code) if path.suffix in (".py", ".pyi") else other_identifiers(code, path.suffix)
    assert banned_words(words) == []


def wide_lines(code: str) -> list[int]:
    """Return the numbers of the lines that are longer than NARROW_COLUMNS."""
    return [number for number, line in enumerate(code.splitlines(), 1) if len(line) > NARROW_COLUMNS]


@pytest.mark.parametrize("place", NARROW)
def test_lines_of_a_narrow_place(place: str) -> None:
    cython = package_files(".pyx", ".pxd")
    files = [path for path in cython if path.relative_to(PACKAGE).as_posix().startswith(place)]
    assert files, f"{place} is not there"
    wide = {named(path): wide_lines(path.read_text(encoding="utf-8")) for path in files}
    assert {name: lines for name, lines in wide.items() if lines} == {}


def test_width_test_can_fail() -> None:
    assert wide_lines("x" * 100 + "\n" + "y" * 101) == [2]


@pytest.mark.parametrize("path", TEST_FILES, ids=named)
def test_test_file(path: Path) -> None:
    assert not bad_ending(path)


def test_folders_are_named_after_what_they_hold() -> None:
    folders = [path for top in (PACKAGE, ROOT / "tests") for path in top.rglob("*") if path.is_dir()]
    assert [wrong for path in folders if (wrong := bad_ending(path))] == []


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in TEST_FILES if path.name.startswith("test_")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_extension_modules_have_declarations_and_stubs() -> None:
    paths = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.*"))
    assert missing_companions(paths) == []


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix != ".md"))
def test_script(script: str) -> None:
    assert not bad_script(script)


@pytest.mark.parametrize("name", ["head_helpers.py", "x_utils.pyx", "x_common.pxd", "tls_support", "x_impl.h", "x_misc.py", "io_ops.pyi"])
def test_ending_test_can_fail(name: str) -> None:
    assert bad_ending(Path(name))
    assert not bad_ending(Path("support.py"))


def test_companion_test_can_fail() -> None:
    assert missing_companions(["a.pyx", "a.pxd", "b.pyx", "c.pxd"]) == ["a.pyi", "b.pxd", "b.pyi"]


@pytest.mark.parametrize("name", ["phase2", "run-final", "test_v2.py", "helpers.py", "setup-things"])
def test_script_test_can_fail(name: str) -> None:
    assert bad_script(name)
    assert not bad_script("find-python")


def test_word_test_can_fail() -> None:
    assert banned_words(python_identifiers("def to_downstream(x): return x  # downstream\n")) == ["to_downstream: we say client"]
    assert banned_words(other_identifiers("cdef int egress(self) noexcept", ".pyx"))
    assert banned_words(other_identifiers("static inline int soth_ingress(void);", ".h"))
    assert not banned_words(python_identifiers('"""downstream"""\nupstream = 1  # ingress\n'))
    assert not banned_words(other_identifiers("/* egress */ int x; // downstream", ".h"))
