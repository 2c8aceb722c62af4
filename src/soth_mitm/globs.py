"""Which of many globs matches a text: an index whose look-up costs the same for ten globs and for a hundred thousand.

A glob is text in which `*` stands for any characters, none included. What is before its first `*` is its prefix, what is after its last
one its suffix, what is between two its inner parts. A text matches when it begins with the prefix, ends with the suffix, and has the
inner parts between them in their order. Taking the earliest place for each inner part is always good enough, so nothing is tried twice.
"""

from __future__ import annotations

# Up to here trying each inner part costs less than looking at each place of the text.
_FEW_PARTS = 8
# What an inner part begins with, as far as that is looked up to learn how long the parts are that begin so.
_BEGINNING = 3


class GlobIndex:
    """Globs, each with a number. `find` returns the lowest number whose glob matches.

    A look-up costs at most one dictionary read for each length that a suffix has, and, below a suffix that the text ends with, one for
    each length that a prefix has. Inner parts are looked for at each place of the text, below matching ends only, and however many globs
    begin with the same parts: once. No cost grows with the number of globs unless the text matches the beginnings of that many.
    """

    __slots__ = ("_parts", "_prefix_lengths", "_suffix_lengths", "_suffixes", "_surrounding")

    def __init__(self) -> None:
        self._suffixes: dict[str, int] = {}
        """Of each glob `*SUFFIX`, which nearly all are: its number."""
        self._surrounding: dict[str, int] = {}
        """Of each glob `PREFIX*SUFFIX` that has a prefix: its number."""
        self._parts: dict[str, _InnerParts] = {}
        """By `PREFIX*SUFFIX`: the globs that have inner parts between these two."""
        self._prefix_lengths: dict[str, tuple[int, ...]] = {}
        """By suffix: how long the prefixes are of the globs of the last two kinds."""
        self._suffix_lengths: tuple[int, ...] = ()

    def add(self, glob: str, number: int) -> None:
        """Add a glob with at least one `*`. Numbers must rise; of two equal globs the first one stands."""
        prefix, *inner, suffix = glob.split("*")
        inner = [part for part in inner if part]
        if len(suffix) not in self._suffix_lengths:
            self._suffix_lengths = tuple(sorted((*self._suffix_lengths, len(suffix))))
        if not prefix and not inner:
            self._suffixes.setdefault(suffix, number)
            return
        lengths = self._prefix_lengths.get(suffix, ())
        if len(prefix) not in lengths:
            self._prefix_lengths[suffix] = tuple(sorted((*lengths, len(prefix))))
        ends = f"{prefix}*{suffix}"
        if not inner:
            self._surrounding.setdefault(ends, number)
            return
        parts = self._parts.get(ends)
        if parts is None:
            parts = self._parts[ends] = _InnerParts(number)
        parts.add(inner, number)

    def find(self, text: str) -> int | None:
        """Return the number of the first glob that matches, None if none does."""
        size = len(text)
        best: int | None = None
        for length in self._suffix_lengths:
            if length > size:
                break
            suffix = text[size - length :]
            number = self._suffixes.get(suffix)
            if number is not None and (best is None or number < best):
                best = number
            for prefix_length in self._prefix_lengths.get(suffix, ()):
                if prefix_length + length > size:
                    break
                ends = f"{text[:prefix_length]}*{suffix}"
                number = self._surrounding.get(ends)
                if number is not None and (best is None or number < best):
                    best = number
                parts = self._parts.get(ends)
                if parts is not None:
                    best = parts.find(text, prefix_length, size - length, best)
        return best


class _InnerParts:
    """What may come next between a prefix and a suffix: one node of a tree of inner parts."""

    __slots__ = ("_beginning_lengths", "_lengths", "_lowest", "_next", "_number")

    def __init__(self, lowest: int) -> None:
        self._lowest = lowest
        """The lowest number here and below: numbers rise, so it is the first one."""
        self._number: int | None = None
        """Of the glob whose last inner part leads here."""
        self._next: dict[str, _InnerParts] = {}
        """By the inner part that comes next."""
        self._lengths: dict[str, tuple[int, ...]] = {}
        """By the first characters of an inner part, `_BEGINNING` of them or all: how long the parts are that begin so."""
        self._beginning_lengths: tuple[int, ...] = ()

    def add(self, inner: list[str], number: int) -> None:
        node = self
        for part in inner:
            following = node._next.get(part)
            if following is None:
                following = node._next[part] = _InnerParts(number)
                node._note(part)
            node = following
        if node._number is None:
            node._number = number

    def _note(self, part: str) -> None:
        beginning = part[:_BEGINNING]
        lengths = self._lengths.get(beginning, ())
        if len(part) not in lengths:
            self._lengths[beginning] = tuple(sorted((*lengths, len(part))))
        if len(beginning) not in self._beginning_lengths:
            self._beginning_lengths = tuple(sorted((*self._beginning_lengths, len(beginning))))

    def find(self, text: str, start: int, end: int, best: int | None) -> int | None:
        """Return the lowest number of the globs below that match `text` between `start` and `end`, or `best` if that is lower."""
        if best is not None and best < self._lowest:
            return best
        if self._number is not None and (best is None or self._number < best):
            best = self._number
        if len(self._next) <= _FEW_PARTS:
            for part, following in self._next.items():
                at = text.find(part, start, end)
                if at >= 0:
                    best = following.find(text, at + len(part), end, best)
            return best
        seen: set[str] = set()
        for at in range(start, end):
            for beginning_length in self._beginning_lengths:
                for length in self._lengths.get(text[at : at + beginning_length], ()):
                    part = text[at : at + length]
                    if at + length <= end and part in self._next and part not in seen:
                        seen.add(part)
                        best = self._next[part].find(text, at + length, end, best)
        return best
