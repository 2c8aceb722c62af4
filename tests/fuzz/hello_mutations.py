"""Changes to a ClientHello that keep its lengths right: a fuzzer of bytes would rarely do that, since there are lengths in lengths."""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzz.plain_hello import ALPN, ECH, FORMATS, GROUPS, SERVER_NAME, SIGNATURES, VERSIONS, Reader, Refused, join_records
from support import hellos

Mutate = Callable[[bytes, int], bytes]
CODES = (SERVER_NAME, GROUPS, FORMATS, SIGNATURES, ALPN, VERSIONS, ECH, 0x0A0A, 0xFF01)
# How long the length is with which the content of an extension begins
LENGTH_SIZES = {SERVER_NAME: 2, GROUPS: 2, FORMATS: 1, SIGNATURES: 2, ALPN: 2, VERSIONS: 1}
CUTS_BEFORE = 2


class Parts:
    """A hello in parts, without their lengths."""

    def __init__(self, data: bytes) -> None:
        message, end = join_records(data[CUTS_BEFORE:])
        if message is None:
            raise Refused("not whole")
        self.before, self.behind = data[:CUTS_BEFORE], data[CUTS_BEFORE + end :]
        body = Reader(message)
        self.start = body.take(34)
        self.session_id, self.suites, self.compressions = body.vector(1), body.vector(2), body.vector(1)
        listed = Reader(body.vector(2) if body.data else b"")
        self.extensions: list[tuple[int, bytes]] = []
        while listed.data:
            self.extensions.append((listed.number(2), listed.vector(2)))

    def join(self, record: int, with_extensions: bool) -> bytes:
        """Return the hello in records of so many bytes."""
        body = (
            self.start + hellos.vector(self.session_id[:255], 1) + hellos.vector(self.suites, 2) + hellos.vector(self.compressions[:255], 1)
        )
        if with_extensions:
            body += hellos.vector(b"".join(code.to_bytes(2) + hellos.vector(content, 2) for code, content in self.extensions), 2)
        return self.before + hellos.records(hellos.handshake(body), record) + self.behind

    def change(self, chance: random.Random, mutate: Mutate) -> None:
        """Change one part."""
        kind = chance.randrange(10)
        if kind == 0:
            self.suites = mutate(self.suites or b"\0", 64)
        elif kind == 1:
            self.session_id = mutate(self.session_id or b"\0", 40)
        elif kind == 2:
            self.compressions = mutate(self.compressions or b"\0", 4)
        elif kind == 3 or not self.extensions:
            self.extensions.insert(chance.randint(0, len(self.extensions)), (chance.choice(CODES), mutate(b"\0", 16)))
        else:
            at = chance.randrange(len(self.extensions))
            code, content = self.extensions[at]
            size = LENGTH_SIZES.get(code, 0)
            if kind == 4:
                del self.extensions[at]
            elif kind == 5:
                self.extensions.insert(chance.randint(0, len(self.extensions)), (code, content))
            elif kind == 6:
                self.extensions[at] = chance.choice(CODES), content
            elif kind == 7 or not size:
                self.extensions[at] = code, mutate(content or b"\0", len(content) + 8)
            else:
                self.extensions[at] = code, hellos.vector(mutate(content[size:] or b"\0", len(content) + 4)[:255], size)


def mutate_hello(data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """Return a like input of at most `most` bytes; `mutate` changes bytes."""
    chance = random.Random(seed)
    if chance.randrange(3) == 0:
        return mutate(data, most)
    try:
        parts = Parts(data)
    except Refused:
        return mutate(data, most)
    for _ in range(chance.choice((1, 1, 2, 3))):
        parts.change(chance, mutate)
    changed = parts.join(chance.choice((16384, 16384, 16384, 300, 40)), bool(parts.extensions) or chance.randrange(2) == 0)
    return changed if len(changed) <= most else mutate(data, most)
