"""Text in the cells of a terminal: what a peer chose is escaped, cut and wrapped here: no line acts on the terminal or moves another.

A line is a list of pieces, each text that is clean and a style. Nothing here reads markup: brackets stay brackets.
"""

import unicodedata
from collections.abc import Iterable, Iterator

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from soth_mitm.escaping import shown

Piece = tuple[str, Style]
Line = list[Piece]

PLAIN, FAINT, BOLD = Style(), Style(dim=True), Style(bold=True)
BAD, CHANGING, GOOD = Style(color="red", bold=True), Style(color="yellow"), Style(color="cyan")
MARKED = Style(reverse=True)

# marks that may stand on one letter; more of them would cover the lines above
_MOST_MARKS = 3
_TAB = "    "


def clean(text: str) -> str:
    """Return text of one line that moves nothing: what does not print is escaped, and so are marks that have no letter or too many."""
    text = shown(text)
    if text.isascii():
        return text
    out: list[str] = []
    marks = _MOST_MARKS
    for each in text:
        if unicodedata.category(each) not in ("Mn", "Me", "Mc") and get_character_cell_size(each):
            marks = 0 if each.isalnum() else _MOST_MARKS
        elif marks < _MOST_MARKS and unicodedata.category(each) == "Mn" and not unicodedata.name(each, "").startswith("VARIATION"):
            marks += 1
        elif unicodedata.category(each) == "Mc" and get_character_cell_size(each):
            # a mark with a cell of its own
            pass
        else:
            each = each.encode("unicode_escape").decode("ascii")
        out.append(each)
    return "".join(out)


def cut(text: str, width: int) -> str:
    """Return clean text, cut to so many cells with an ellipsis at its end."""
    # what is cut off need not be cleaned; a character may have no cell
    text = clean(text[: 4 * width + 64])
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    return f"{_prefix(text, width - 1)}…"


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return clean text in exactly so many cells."""
    text = cut(text, width)
    pad = " " * (width - cell_len(text))
    return pad + text if right else text + pad


def wrap(text: str, width: int) -> Iterator[str]:
    """Yield the lines of text, escaped and as wide as that; a line feed ends a line, and so does a carriage return before it."""
    width = max(2, width)
    for line in text.split("\n"):
        line = clean(line.removesuffix("\r").replace("\t", _TAB))
        is_ascii, start = line.isascii(), 0
        while True:
            end = start + width if is_ascii else start + len(_prefix(line[start : start + width], width))
            if end >= len(line):
                yield line[start:]
                break
            # between words, unless that leaves too much of the line empty
            blank = line.rfind(" ", start + width // 2, end)
            end = end if blank < 0 or line[end] == " " else blank + 1
            yield line[start:end]
            start = end


def _prefix(text: str, width: int) -> str:
    """Return what of clean text fits into so many cells, at least 2 of them, with the marks on its last letter."""
    cells = 0
    for index, each in enumerate(text):
        cells += get_character_cell_size(each)
        if cells > width:
            return text[:index]
    return text


def wrapped(text: str, width: int, style: Style = PLAIN, indent: str = "") -> Iterator[Line]:
    """Yield lines of text in one style, each behind `indent`."""
    for part in wrap(text, width - len(indent)):
        yield [(indent + part, style)]


def strip_of(line: Iterable[Piece], width: int, over: Style = PLAIN) -> Strip:
    """Return a line as the widget draws it: in exactly so many cells, `over` laid over its styles."""
    segments = [Segment(text, style + over) for text, style in line if text]
    return Strip(segments).adjust_cell_length(width, over)


def sides(left: Line, right: Line, width: int) -> Line:
    """Return a line with something at both ends; where there is not enough room the right one is left out."""
    room = width - sum(cell_len(text) for text, _ in left) - sum(cell_len(text) for text, _ in right)
    return [*left, (" " * room, PLAIN), *right] if room > 0 else left
