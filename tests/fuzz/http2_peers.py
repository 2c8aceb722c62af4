"""Clients and upstreams that speak HTTP/2. What they say is in the operations, see `http2_wire`; what they hear has to be legal."""

from __future__ import annotations

from typing import Any

from fuzz.fake_loop import FakeLoop
from fuzz.http2_wire import Http2Talk
from fuzz.scene import Peer


class Http2Peer(Peer):
    """One connection."""

    http2: Http2Talk
    requests: Any
    responses: Any

    def __init__(self, loop: FakeLoop, endpoint: Any, *, is_client: bool, bare: bool) -> None:
        super().__init__(loop, endpoint)
        self.http2 = Http2Talk(is_client=is_client, bare=bare)
        self.requests, self.responses = self.http2.directions

    def begin(self) -> None:
        """Say what every connection begins with."""
        self.transport.peer_sends(self.http2.begin())

    def speak(self, data: bytes, many: bool) -> None:
        """Say what an operation has it say."""
        for piece in self.http2.speak(data, many):
            self.transport.peer_sends(piece)

    def say(self, data: bytes) -> None:
        self.http2.say(data)

    def hear(self, data: bytes) -> None:
        self.transport.peer_sends(self.http2.hear(data))


class Http2Upstream(Http2Peer):
    """An upstream."""

    def __init__(self, loop: FakeLoop, endpoint: Any, *, bare: bool) -> None:
        super().__init__(loop, endpoint, is_client=False, bare=bare)
