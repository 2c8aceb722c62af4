from collections.abc import Iterable

from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.head_edits import HeadEdits

FAULT_TEXTS: dict[int, str]
REASONS: tuple[bytes, ...]

def request_of(fields: Iterable[tuple[bytes, bytes, bool]], may_extend: bool = False, most_fields: int = 256) -> tuple[Head, bool, bytes]:
    """Return the head, whether it is https, and :protocol (b"" for none), of (name, value, never indexed) triples.

    Raises ValueError with the rule that is broken.
    """

def response_of(fields: Iterable[tuple[bytes, bytes, bool]], most_fields: int = 256) -> Head:
    """Return the head of a response; as `request_of`."""

def trailers_of(fields: Iterable[tuple[bytes, bytes, bool]], is_request: bool = False, most_fields: int = 256) -> bytes:
    """Return the lines of trailers; as `request_of`."""

def fields_of_request(
    head: Head, https: bool = True, authority: bytes = b"", protocol: bytes = b"", edits: HeadEdits | None = None
) -> list[tuple[bytes, bytes, bool]]:
    """Return the (name, value, never indexed) triples that a request leaves as."""

def fields_of_response(head: Head, edits: HeadEdits | None = None) -> list[tuple[bytes, bytes, bool]]:
    """Return the triples that a response leaves as."""

def fields_of_trailers(lines: bytes) -> list[tuple[bytes, bytes, bool]]:
    """Return the triples that trailers leave as; `lines` are field lines, each with its CRLF."""

def fields_of_own_response(status: int, headers: Iterable[tuple[bytes, bytes]] = (), length: int = -1) -> list[tuple[bytes, bytes, bool]]:
    """Return the triples of a response of our own."""
