"""wsproto on both ends of a WebSocket that the proxy filters: its receiver reads what the handler let pass, in any split."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from fuzz.websocket_relays import CLIENT, COMPRESSED, FILTERS, FORGETS, SLOW, decided, relay
from support.feeding import cut_at

# what `fuzz.websocket_relays` shows of a message
MOST = 65536
Message = tuple[int, bytes]

TEXTS = st.text(max_size=300).map(lambda text: (1, text.encode()))
OCTETS = st.binary(max_size=300).map(lambda octets: (2, octets))
REPEATED = st.tuples(st.just(2), st.builds(lambda piece, count: piece * count, st.binary(min_size=1, max_size=40), st.integers(1, 200)))
# how many frames a message has, and whether a ping comes behind it
MESSAGES = st.lists(st.tuples(st.one_of(TEXTS, OCTETS, REPEATED), st.integers(1, 3), st.booleans()), max_size=12)


def protocol(is_client: bool, compresses: bool, takeover: bool) -> FrameProtocol:
    """Return an end that has agreed on this."""
    extensions = []
    if compresses:
        extensions.append(PerMessageDeflate(not takeover, 15, not takeover, 15))
        extensions[0].finalize("permessage-deflate")
    return FrameProtocol(is_client, extensions)


def sent(sender: FrameProtocol, messages: list[tuple[Message, int, bool]]) -> bytes:
    """Return what an end sends."""
    data = b""
    for (kind, payload), count, pings in messages:
        whole: Any = payload.decode() if kind == 1 else payload
        size = max(1, -(-len(whole) // count))
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)] or [whole]
        for number, piece in enumerate(pieces):
            data += sender.send_data(piece, fin=number == len(pieces) - 1)
        if pings:
            data += sender.ping(b"ping")
    return data


def received(receiver: FrameProtocol, data: bytes) -> list[Message]:
    """Return the messages that an end reads."""
    receiver.receive_bytes(data)
    found: list[Message] = []
    parts = b""
    for frame in receiver.received_frames():
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY):
            continue
        payload: Any = frame.payload
        parts += payload.encode() if isinstance(payload, str) else bytes(payload)
        if frame.message_finished:
            found.append((int(frame.opcode), parts))
            parts = b""
    return found


@pytest.mark.parametrize("from_client", [True, False], ids=["client", "upstream"])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@settings(max_examples=60, deadline=None)
@given(messages=MESSAGES, compresses=st.booleans(), takeover=st.booleans(), cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_the_receiver_reads_what_was_let_pass(
    from_client: bool, later: bool, messages: list[tuple[Message, int, bool]], compresses: bool, takeover: bool, cuts: list[int]
) -> None:
    data = sent(protocol(from_client, compresses, takeover), messages)
    options = FILTERS | (SLOW if later else 0) | (CLIENT if from_client else 0)
    options |= (COMPRESSED if compresses else 0) | (0 if takeover else FORGETS)
    heard, code = relay(options, 0, cut_at(data, cuts))
    expected, is_ended = decided([message for message, _, _ in messages], MOST)
    assert code == (1008 if is_ended else 0)
    assert received(protocol(not from_client, compresses, takeover), heard) == expected
