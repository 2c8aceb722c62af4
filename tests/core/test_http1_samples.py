"""Read every sample of tests/corpus/http1, in every way in which its bytes can arrive, and compare with its verdict.

How a sample is written is said in tests/corpus/http1/README.md.
"""

from __future__ import annotations

from typing import Any

import pytest

from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.wire.head import Head
from support.feed import Outcome, Reading, read_every_way
from support.samples import Block, Sample, read_samples

SAMPLES = read_samples("http1")


def escaped(data: bytes) -> str:
    """Write bytes as the samples do."""
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def yes(value: object) -> str:
    """Write a truth value as the samples do."""
    return "yes" if value else "no"


def facts(outcome: Outcome, head: Head | None, data: bytes) -> dict[str, str]:
    """Everything that a verdict may state."""
    found = {"complete": yes(outcome.complete), "left": escaped(outcome.left), "refused": outcome.refused}
    if head is None:
        return found
    sent_on = rewrite_request(head) if head.is_request else rewrite_response(head)
    said = head.facts
    return found | {
        "method": head.method,
        "target": head.target,
        "path": head.path,
        "authority": head.authority or "",
        "version": head.version,
        "status": str(head.status),
        "reason": escaped(head.reason),
        "fields": ", ".join(f"{escaped(name)}={escaped(value)}" for name, value in head.fields),
        "length": str(said["content_length"]),
        "keeps alive": yes(said["keeps_alive"]),
        "upgrade": yes(said["upgrade"]),
        "waits for 100": yes(said["expect_continue"]),
        "framing": outcome.framing.replace("_", " "),
        "content": escaped(outcome.content),
        "body sent on": escaped(outcome.relayed),
        "trailers": escaped(outcome.trailers),
        "sent on": "as it came" if sent_on is head.raw and sent_on in data else escaped(sent_on),
    }


def reading(name: str, block: Block) -> Reading:
    """Turn the options of an input block into how it is read."""
    kinds: dict[str, Any] = {"limit": int, "trailer_limit": int, "request_method": str, "eof": "yes".__eq__}
    return Reading(name == "request", **{key: kinds[key](value) for key, value in block.options.items()})


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_sample(sample: Sample) -> None:
    name = "request" if "request" in sample.blocks else "response"
    block = sample.blocks[name]
    found = facts(*read_every_way(block.data, reading(name, block)), block.data)
    expected = sample.verdict
    assert set(expected) & {"refused", "complete"}, "a verdict says `refused` or `complete`"
    expected = {"refused": "", "left": ""} | expected
    assert {key: found.get(key, "(no head)") for key in expected} == expected


def test_there_are_enough_of_each_kind() -> None:
    """Heads, chunked bodies and responses: a sample that is taken out is missed."""
    requests = [sample for sample in SAMPLES if "request" in sample.blocks]
    chunked = [sample for sample in requests if b"transfer-encoding: chunked" in sample.blocks["request"].data.lower()]
    assert len(requests) - len(chunked) >= 180 and len(chunked) >= 70 and len(SAMPLES) - len(requests) >= 40
