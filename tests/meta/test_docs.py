"""What the documents show exists and runs: links lead to files, and code blocks are excerpts of files that other tests run.

A block of README.md or docs/ that a reader may paste begins with ```` ```python file=docs/examples/quickstart.py ````; its lines then stand
in that file, word for word. A Python block without `file=` is a sketch and must still compile.
"""

import ast
import py_compile
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.source import ROOT, line_of, named

EXAMPLES = sorted((ROOT / "docs/examples").rglob("*.py"))
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(page for top in ("docs", "ext", "tests", "bench", "scripts") for page in (ROOT / top).rglob("*.md")))
    if "corpus" not in path.parts
)


class Block(NamedTuple):
    """One fenced block."""

    line: int
    language: str
    file: str
    code: str


FENCE = re.compile(
    r"^[ \t]*(?P<fence>```+)[ \t]*(?P<language>\w*)(?P<rest>[^\n`]*)\n(?P<code>.*?)^[ \t]*(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for match in FENCE.finditer(text):
        file = re.search(r"\bfile=(\S+)", match["rest"])
        yield Block(line_of(text, match.start()), match["language"], file[1] if file else "", textwrap.dedent(match["code"]))


def block_faults(block: Block, root: Path) -> list[str]:
    """Return what is wrong with a Python block of a page."""
    if block.file:
        source = root / block.file
        if not source.is_relative_to(root / "docs/examples") or not source.is_file():
            return [f"{block.line}: {block.file} is no file of docs/examples"]
        shown = block.code.strip("\n")
        whole = f"\n{source.read_text(encoding='utf-8')}\n"
        if f"\n{shown}\n" not in whole:
            return [f"{block.line}: the block does not stand in {block.file} word for word"]
        return []
    try:
        compile(block.code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return [f"{block.line}: the block does not compile: {error}"]
    return []


def dead_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead to no file."""
    prose = FENCE.sub(lambda match: "\n" * match.group().count("\n"), text)
    dead = []
    for match in LINK.finditer(prose):
        target = match[1].partition("#")[0]
        if target and not re.match(r"[a-z][a-z0-9+.-]*:", target) and not (page.parent / target).exists():
            dead.append(f"{line_of(prose, match.start())}: {target} does not exist")
    return dead


def test_the_front_page_has_code_that_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [block.file for block in blocks(readme) if block.language == "python" and block.file], "README.md shows no file of docs/examples"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = dead_links(page, text)
    wrong += [fault for block in blocks(text) if block.language == "python" for fault in block_faults(block, ROOT)]
    assert not wrong, "\n".join(f"{named(page)}:{fault}" for fault in wrong)


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_example_compiles(example: Path, tmp_path: Path) -> None:
    py_compile.compile(str(example), cfile=str(tmp_path / "example.pyc"), doraise=True)


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    (tmp_path / "docs/examples").mkdir(parents=True)
    (tmp_path / "docs/examples/a.py").write_text("import x\n\n\nclass A:\n    y = 1\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("x", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("page", "part"),
    [
        ("```python file=docs/examples/a.py\nclass A:\n    y = 2\n```\n", "1: the block does not stand"),
        ("```python file=docs/examples/a.py\n    y = 1\nimport x\n```\n", "1: the block does not stand"),
        ("\n```python file=docs/examples/b.py\nimport x\n```\n", "2: docs/examples/b.py is no file"),
        ("```python file=README.md\nx\n```\n", "1: README.md is no file of docs/examples"),
        ("```python\nclass:\n```\n", "1: the block does not compile"),
    ],
)
def test_block_test_can_fail(small_tree: Path, page: str, part: str) -> None:
    (block,) = blocks(page)
    assert block_faults(block, small_tree)[0].startswith(part)


@pytest.mark.parametrize(
    "page",
    [
        "```python file=docs/examples/a.py\nimport x\n\n\nclass A:\n    y = 1\n```\n",
        "1. so:\n   ```python file=docs/examples/a.py\n   class A:\n       y = 1\n   ```\n",
        "```python\nasync with proxy as handle:\n    ...\nawait x\n```\n",
    ],
)
def test_block_test_lets_pass(small_tree: Path, page: str) -> None:
    (block,) = blocks(page)
    assert block_faults(block, small_tree) == []


def test_link_test_can_fail(small_tree: Path) -> None:
    page = small_tree / "docs/page.md"
    text = "[a](examples/a.py) [b](https://x.example/y) [c](#here) [d](../README.md#x)\n```\n[e](f)\n```\n\n[g](gone.md#h) ![i](gone.png)\n"
    assert dead_links(page, text) == ["6: gone.md does not exist", "6: gone.png does not exist"]
