"""Ways in which the bytes of an input arrive. What is made of them must be the same in each."""

from __future__ import annotations

from collections.abc import Iterator

# A reader sees all that has arrived again with each piece, so that byte by byte takes the square of the length
LONGEST_BYTEWISE = 192


def every_way(data: bytes, first: int, second: int) -> Iterator[list[bytes]]:
    """Yield `data` in three pieces, and byte by byte: of a long input its end, where most of it has been read at once."""
    here, there = sorted((first % (len(data) + 1), (first + 7 * second) % (len(data) + 1)))
    yield [data[:here], data[here:there], data[there:]]
    begin = max(0, len(data) - LONGEST_BYTEWISE)
    yield [data[:begin], *(data[at : at + 1] for at in range(begin, len(data)))]
