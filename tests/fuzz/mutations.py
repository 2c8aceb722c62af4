"""Changes to a list of operations: what a fuzzer of bytes would rarely hit upon, one operation more or less, elsewhere, or in two."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from fuzz.operations import LETTERS, SAME_TURN, SEPARATOR

Mutate = Callable[[bytes, int], bytes]
# One in so many changes is one of the bytes
BYTES_IN = 3
MOST_DIGITS = 4
MOST_SETTINGS = 8


def insert(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """One more: a known one, or one that says nothing."""
    empty = bytes((ord(chance.choice(LETTERS)), 48 + chance.randrange(MOST_DIGITS)))
    operations.insert(chance.randint(0, len(operations)), chance.choice([*words, empty]) if words else empty)


def delete(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """Some fewer."""
    begin = chance.randrange(len(operations))
    del operations[begin : begin + chance.randint(1, 3)]


def repeat(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """Some of them again, at another place."""
    begin = chance.randrange(len(operations))
    some = operations[begin : begin + chance.randint(1, 4)]
    at = chance.randint(0, len(operations))
    operations[at:at] = some


def move(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """One at another place."""
    operation = operations.pop(chance.randrange(len(operations)))
    operations.insert(chance.randint(0, len(operations)), operation)


def readdress(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """One about somebody else, or by another verb, or in the turn of the next one."""
    at = chance.randrange(len(operations))
    verb, number, data = operations[at][:1], operations[at][1:2], operations[at][2:]
    kind = chance.randrange(3)
    if kind == 0:
        number = bytes((48 + chance.randrange(MOST_DIGITS),))
    elif kind == 1:
        verb = chance.choice(LETTERS).encode()
    elif verb:
        verb = bytes((verb[0] ^ SAME_TURN,))
    operations[at] = verb + (number or b"0") + data


def split(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """One in two, each with a part of the data."""
    at = chance.randrange(len(operations))
    operation = operations[at]
    place = chance.randint(2, max(2, len(operation)))
    operations[at : at + 1] = [operation[:place], operation[:2] + operation[place:]]


def join(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """Two that follow one another in one."""
    at = chance.randrange(len(operations))
    operations[at : at + 2] = [operations[at] + b"".join(operation[2:] for operation in operations[at + 1 : at + 2])]


def change_data(operations: list[bytes], chance: random.Random, words: Sequence[bytes], mutate: Mutate) -> None:
    """Other data of one."""
    at = chance.randrange(len(operations))
    operation = operations[at]
    changed = mutate(operation[2:], len(operation) + 64) if operation[2:] else chance.choice(words or (b"",))[2:]
    operations[at] = operation[:2] + changed.replace(SEPARATOR, b"")


CHANGES = (insert, insert, delete, repeat, move, readdress, split, join, change_data, change_data)


def mutate_operations(words: Sequence[bytes], data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """Return a like input of at most `most` bytes; `mutate` changes bytes, `words` are operations and parts of them."""
    chance = random.Random(seed)
    settings, *operations = data.split(SEPARATOR)
    if not operations or chance.randrange(BYTES_IN) == 0:
        return mutate(data, most)
    known = [word.strip(SEPARATOR) for word in words if word.startswith(SEPARATOR)]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if operations:
            chance.choice(CHANGES)(operations, chance, known, mutate)
    if chance.randrange(16) == 0:
        settings = mutate(settings or b"\0", MOST_SETTINGS).replace(SEPARATOR, b"")[:MOST_SETTINGS]
    changed = SEPARATOR.join([settings, *operations])
    return changed if len(changed) <= most else mutate(data, most)
