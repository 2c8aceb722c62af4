"""One client connection, as all parts of its set-up know it."""

import uuid
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from soth_mitm._dataplane.http1.encoder import own_explanation
from soth_mitm._dataplane.transport.lingering_close import linger_and_close
from soth_mitm.connection import ConnectionMeta, SocketFamily
from soth_mitm.observe.observation import EventKind
from soth_mitm.proxy.client_reader import ClientReader
from soth_mitm.proxy.generation import ConfigGeneration
from soth_mitm.proxy.protocols import ClientEndpoint


class Client:
    """A connection with the configuration that it began under, and what is known of it by now."""

    __slots__ = ("_refusal", "endpoint", "generation", "is_accepted", "meta", "reader", "recording")

    def __init__(
        self, generation: ConfigGeneration, endpoint: ClientEndpoint, family: SocketFamily, refusal: Callable[[int, str], bytes]
    ) -> None:
        """`refusal(status, reason)` is what refuses a client that has not been told yet that it may begin."""
        self.generation = generation
        self.endpoint = endpoint
        self.reader = ClientReader(generation.resources.loop)
        self.reader.attach(endpoint)
        self.meta = ConnectionMeta(uuid.uuid4(), family)
        self.is_accepted = False
        self._refusal = refusal
        recording = generation.resources.recording
        self.recording = None if recording is None else recording.connection(self)
        """What event sinks are told of it; None: there are none."""

    @property
    def octets(self) -> tuple[int, int]:
        """Bytes that came from the client, and that went to it, TLS excluded."""
        return self.endpoint.bytes_in, self.endpoint.bytes_out

    def learn(self, **facts: Any) -> None:
        """Put something into `meta`."""
        self.meta = replace(self.meta, **facts)

    def observe(self, kind: EventKind, *, status: int = 0, cause: str = "") -> None:
        """Tell the observer, if there is one."""
        observation = self.generation.resources.observation
        if observation is not None:
            host, port = self.meta.target or ("", 0)
            observation.connection(kind, self.meta, host, port, status=status, cause=cause)

    def observe_refusal(self, status: int, cause: str, *, is_explained: bool = False) -> None:
        """Tell whoever wants to know that the client is refused; `is_explained`: each request in its tunnel is answered so."""
        self.observe(EventKind.REFUSED, status=status, cause=cause)
        if self.recording is not None:
            self.recording.refused(status, cause, is_explained=is_explained)

    def accept(self, reply: bytes) -> None:
        """Tell the client that it may begin to speak to its target."""
        self.is_accepted = True
        self._refusal = own_explanation
        if reply:
            self.endpoint.write(reply)

    def refuse(self, status: int, reason: str) -> None:
        """Tell the client that, and why, nothing comes of what it asks for."""
        self.observe_refusal(status, reason)
        if self.endpoint.gone:
            return
        self.endpoint.write(self._refusal(status, reason))
        linger_and_close(self.endpoint, self.generation.settings)
