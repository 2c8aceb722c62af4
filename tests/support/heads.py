"""Parse one head whose bytes are all there."""

from __future__ import annotations

from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head


def parse_request(data: bytes, limit: int = 65536, most_fields: int = 256) -> tuple[Head, int] | None:
    """Parse the request head at the start of `data`: (head, bytes consumed), or None when its end is not there."""
    return HeadReader(True, limit, most_fields).feed(data)


def parse_response(data: bytes, limit: int = 65536, most_fields: int = 256) -> tuple[Head, int] | None:
    """Parse the response head at the start of `data`; as `parse_request`."""
    return HeadReader(False, limit, most_fields).feed(data)
