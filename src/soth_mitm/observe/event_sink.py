"""`EventSink`: the base of what keeps or passes on what a proxy saw, beside its traffic.

    builder.with_event_sink(NdjsonSink("events.ndjson"))

A sink runs in a thread of its own. What happens in the proxy is put into a bounded queue for it; what does not fit is dropped and counted,
and traffic never waits. An exception of a sink is counted and logged; after three in a row the sink is given nothing more.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import FlowUpdate


class SinkInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Of the proxy that a sink is attached to."""

    proxy_id: UUID
    """Of this start of the proxy."""
    version: str
    """Of this package."""
    pid: int
    started: float
    """Seconds since 1970."""
    listening: tuple[str, ...] = ()
    """Where it accepts clients: `127.0.0.1:8080`, `unix:/run/proxy.sock`."""
    worker: int = 0


class EventSink:
    """Derive from it, say what you want, and override `accept`.

    `open`, `accept` and `close` are called in one thread, one at a time. The attributes are read once, when the sink is attached.
    """

    name: str = ""
    """In logs and metrics; `""`: the name of the class."""
    kinds: frozenset[FlowEventKind] = frozenset()
    """The events that it wants. What no sink wants is not made."""
    flows: bool = False
    """Whether it wants a `FlowUpdate` of each flow."""
    content: int = 0
    """With `flows`: bytes that it wants of the body of each side. 0: none, and none is copied for it."""
    messages: bool = False
    """With `flows`: whether it wants the messages of WebSockets. Then they are decoded, `content` bytes of each one at most."""

    def open(self, info: SinkInfo) -> None:
        """The proxy starts. What is raised here is raised by `start()`, as `EventSinkError`."""

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        """Take what has happened, in its order. It may take its time: what comes meanwhile waits in the queue."""
        raise NotImplementedError

    def dropped(self, count: int) -> None:
        """So many events and updates did not fit into the queue since the last call; called before the next `accept`."""

    def close(self, timeout: float) -> None:
        """The proxy has ended, and `accept` was given all that happened. After `timeout` seconds it is not waited for any longer."""
