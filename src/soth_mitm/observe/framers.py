"""Which framer cuts a body into events, by its media type."""

from soth_mitm._dataplane.wire.eventstream import EventStreamFramer
from soth_mitm._dataplane.wire.framer import Framer
from soth_mitm._dataplane.wire.grpc import GrpcFramer
from soth_mitm._dataplane.wire.ndjson import JsonSeqFramer, NdjsonFramer
from soth_mitm._dataplane.wire.sse import SseFramer

EVENT_BUDGET = 1 << 20
"""Bytes of one event or line that are shown."""

_FRAMERS: dict[str, type[Framer]] = {
    "text/event-stream": SseFramer,
    "application/x-ndjson": NdjsonFramer,
    "application/ndjson": NdjsonFramer,
    "application/jsonl": NdjsonFramer,
    "application/stream+json": NdjsonFramer,
    "application/json-seq": JsonSeqFramer,
    "application/vnd.amazon.eventstream": EventStreamFramer,
}


def framer_for(media: str, grpc_encoding: bytes | None = None) -> Framer | None:
    """Return what cuts a body of this type, without parameters and in lower case, into events; None for one that is no stream."""
    if media.startswith("application/grpc"):
        return GrpcFramer(EVENT_BUDGET, grpc_encoding, "grpc-web" in media, media.startswith("application/grpc-web-text"))
    kind = _FRAMERS.get(media)
    return None if kind is None else kind(EVENT_BUDGET)
