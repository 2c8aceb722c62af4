from typing import Any

from soth_mitm._dataplane.wire.head import Head

BODY_FIELDS: tuple[bytes, ...]
SIGNATURES: tuple[bytes, ...]
REPLACED_FIELDS: tuple[bytes, ...]
PLAIN_TEXT: bytes

def changed(head: Head, decision: Any, authority: bytes | None = None, limit: int = 65536, most_fields: int = 256) -> Head:
    """Return the head that `decision` makes of `head`; `head` itself if that changes nothing. For
    tests.
    """

def changed_response(head: Head, decision: Any, length: int = -1, limit: int = 65536, most_fields: int = 256) -> Head:
    """Return the head that `decision`, a `change` or `replace`, makes of a response's. For tests."""
