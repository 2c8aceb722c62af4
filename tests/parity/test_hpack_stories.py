"""HPACK over long connections: the public stories of other encoders, and generated blocks both ways against the `hpack` library.

SOTH_MITM_HPACK_STORIES=FOLDER reads a clone of hpack-test-case in place of the corpus, SOTH_MITM_HPACK_BLOCKS=COUNT generates more blocks.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest

from fuzz.hpack import CODED, ENCODE, PLAIN, RAW, RESIZE, SIZES, Connection, field_of, library_decoder
from soth_mitm._dataplane.http2.hpack_decoder import HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder
from support.source import ROOT

FOLDER = os.environ.get("SOTH_MITM_HPACK_STORIES", "")
BLOCKS = int(os.environ.get("SOTH_MITM_HPACK_BLOCKS", "400"))
# Field lists without blocks
RAW_FOLDER = "raw-data"
BLOCKS_OF_A_CONNECTION = 40

Story = tuple[str, list[list[tuple[bytes, bytes]]], list[bytes]]


def fields_of(pairs: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in pairs]


def corpus() -> Iterator[Story]:
    """Yield the stories of the corpus: a name, field lists, and the blocks that were made of them."""
    for story in json.loads((ROOT / "tests/corpus/hpack/stories.json").read_text(encoding="utf-8")):
        for encoder, wires in story["wires"].items():
            yield f"{encoder} {story['story']}", list(map(fields_of, story["headers"])), list(map(bytes.fromhex, wires))


def clone(folder: Path) -> Iterator[Story]:
    """Yield those of a clone."""
    for path in sorted(folder.glob("*/story_*.json")):
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        if path.parent.name != RAW_FOLDER:
            heads = [fields_of([[name, value] for field in case["headers"] for name, value in field.items()]) for case in cases]
            yield f"{path.parent.name} {path.stem}", heads, [bytes.fromhex(case["wire"]) for case in cases]


@pytest.mark.timeout(600)
def test_stories_of_other_encoders() -> None:
    count = 0
    for name, heads, blocks in clone(Path(FOLDER)) if FOLDER else corpus():
        decoder, encoder, theirs = HpackDecoder(), HpackEncoder(), library_decoder()
        for head, block in zip(heads, blocks, strict=True):
            fields, is_over = decoder.decode_block(block, 1 << 28)
            assert [field[:2] for field in fields] == head and not is_over, name
            made = encoder.encode_block([(*field, False) for field in head])
            assert [field_of(field)[:2] for field in theirs.decode(made, raw=True)] == head, name
        count += len(blocks)
    assert count >= 322


POOL = [
    *(b":method:GET", b":method:POST", b":scheme:https", b":path:/", b":path:/v1/messages?x=1", b":status:200", b":status:431"),
    *(b":authority:api.example.com", b"accept:*/*", b"accept-encoding:gzip, deflate, br", b"cookie:a=1", b"!x-secret:never"),
    *(b"authorization:Bearer sk-0123456789", b"content-type:application/json", b"date:Sat, 28 Nov 2026 10:00:00 GMT"),
    *(b"cookie:session=0123456789abcdef0123456789abcdef", b"set-cookie:id=1; Path=/", b'etag:"0"', b"empty:", b"x-\xc3\xbc:\x80\xff"),
]


def generated(chance: random.Random) -> bytes:
    """Return the field lines of a block."""
    lines = [chance.choice(POOL) for _ in range(chance.randint(0, 14))]
    for _ in range(chance.randint(0, 3)):
        lines.append(b"x-%d:%s" % (chance.randrange(40), bytes(chance.choices(b"abcXYZ0189;=\x00\xff", k=chance.randrange(60)))))
    if chance.random() < 0.02:
        # more than a table holds
        lines.append(b"x:y*")
    return b"\n".join(lines)


@pytest.mark.timeout(120 + BLOCKS // 100)
def test_generated_blocks() -> None:
    chance = random.Random(7541)
    done = refused = 0
    while done < BLOCKS:
        connection = Connection()
        for _ in range(BLOCKS_OF_A_CONNECTION):
            done += 1
            lines = generated(chance)
            if chance.random() < 0.05:
                connection.act(RESIZE, chance.randrange(len(SIZES)), b"")
                connection.encoder.allow_table(chance.choice(SIZES))
            connection.act(ENCODE, 0, lines)
            if chance.random() < 0.03:
                block = bytearray(hpack.Encoder().encode([(b"x", b"damaged"), (b":path", b"/")]) + b"\xbe\x40\x01a\x01b")
                block[chance.randrange(len(block))] ^= 1 << chance.randrange(8)
                if not connection.act(RAW, 3, bytes(block)):
                    refused += 1
                    break
            assert connection.act(chance.choice((CODED, PLAIN)), 3, lines), lines
    assert refused
