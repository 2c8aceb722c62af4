"""Whatever a client says first inside a CONNECT to an intercepted destination, however it is cut and whenever it comes: nothing that a
server may take for a request or for TLS arrives at the origin past a handler that blocks everything.

There are no sockets and no clocks here: time passes when the test says so.
"""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.operations import Operation
from fuzz.plain_hello import first_word_ends_in_a_blank
from fuzz.proxies import BLOCK_UNKNOWN, ProxyScene
from soth_mitm.proxy import settings as proxy_settings

FRAGMENTS = (
    *(
        b"GET",
        b"PRI",
        b"SSH-2.0-x",
        b"G@T",
        b"A" * 33,
        b"CONNECT",
        b"PING",
        b"/secret",
        b"ws://a/secret",
        b"*/x",
        b"x",
        b"HTTP/1.1",
        b"HTTP/2.0",
    ),
    *(
        b" ",
        b"\t",
        b"\v",
        b"\f",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"Host: a.example\r\n",
        b"\x00",
        b"\x01",
        b"\x80",
        b"\x80\x2e\x01\x03\x01",
    ),
    *(
        b"\x16\x03\x01",
        b"\x16\x02\x01\x00\x01",
        b"\x15\x03\x01\x00\x02\x01\x00",
        b"\x14\x03\x03\x00\x01\x01",
        b"\x17",
        b"\x00\x05\x01\x00\x00",
    ),
)
said = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=6)), max_size=8)
# what happens before a piece: nothing, time passes, or the origin speaks
between = st.lists(st.sampled_from(["", "", "", "late", "upstream"]), max_size=8)


@pytest.mark.parametrize("unknown", ["block", "tunnel"])
@settings(deadline=None, max_examples=100)
@given(pieces=said, events=between, ends=st.booleans())
def test_nothing_of_a_request_arrives(unknown: str, pieces: list[bytes], events: list[str], ends: bool) -> None:
    scene = ProxyScene(bytes((0, 0, 0, 0, BLOCK_UNKNOWN if unknown == "block" else 0)))
    scene.handler.behaviour["on_request"] = "block"
    with (
        mock.patch.object(scene.handler, "_as_request", lambda _id, answer, outcome=None: answer),
        mock.patch.object(proxy_settings, "LINGER_SECONDS", 0.0),
        scene.loop,
    ):
        scene.start()
        scene.act(Operation("client", 0, b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n", False))
        for index, piece in enumerate(pieces):
            event = events[index] if index < len(events) else ""
            if event:
                scene.act(Operation(event, 0, b"220 ready\r\n" if event == "upstream" else b"", False))
            scene.act(Operation("client", 0, piece, False))
        if ends:
            scene.act(Operation("client_ends", 0, b"", False))
        for origin in scene.origins_of("a"):
            assert not origin.heard or unknown == "tunnel", f"{b''.join(pieces)!r} was tunnelled"
            assert not origin.heard or not 0x14 <= origin.heard[0] <= 0x17, "TLS was tunnelled"
            assert origin.heard.startswith(b"SSH-") or not first_word_ends_in_a_blank(origin.heard.partition(b"\n")[0]), (
                "a request was tunnelled"
            )
        scene.handler.behave_well()
        scene.wind_down()
