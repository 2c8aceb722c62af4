"""Samples of wire behaviour, written as Markdown: a heading, why it matters, and fenced blocks with what goes in and what must come out.

A block's first word is its name, `key=value` words after it are options. In input blocks a line end of the file means nothing; what is sent
is written out with the escapes of Python (``\\r``, ``\\n``, ``\\0``, ``\\xEF``), so that a reader sees every byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "corpus"


@dataclass
class Block:
    """One fenced block."""

    text: str
    options: dict[str, str]

    @property
    def data(self) -> bytes:
        """The bytes that an input block stands for."""
        joined = "".join(self.text.splitlines())
        return joined.encode("utf-8").decode("unicode_escape").encode("latin-1")


@dataclass
class Sample:
    """One heading with its blocks."""

    name: str
    blocks: dict[str, Block] = field(default_factory=dict)

    @property
    def verdict(self) -> dict[str, str]:
        """The facts of the verdict block, by name."""
        return dict(line.partition(": ")[::2] for line in self.blocks["verdict"].text.replace(":\n", ": \n").splitlines())


def read_samples(folder: str) -> list[Sample]:
    """Return the samples of every Markdown file in a folder of the corpus, in the order of file names."""
    samples = [sample for path in sorted((CORPUS / folder).glob("*.md")) for sample in _parse(path)]
    names = [sample.name for sample in samples]
    assert samples and len(set(names)) == len(names), f"tests/corpus/{folder}: no samples, or two of one name"
    return samples


def _parse(path: Path) -> list[Sample]:
    samples: list[Sample] = []
    block: Block | None = None
    for line in path.read_text("utf-8").splitlines():
        if block is not None:
            if line == "```":
                block = None
            else:
                block.text += line + "\n"
        elif line.startswith("## "):
            samples.append(Sample(f"{path.stem}: {line[3:].strip()}"))
        elif opened := re.fullmatch(r"```(\w+)((?: \w+=\w+)*)", line):
            block = Block("", dict(option.split("=") for option in opened[2].split()))
            samples[-1].blocks[opened[1]] = block
    return samples
