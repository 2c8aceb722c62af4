from typing import Any

from soth_mitm._dataplane.wire.head import Head

BODY_FIELDS: tuple[bytes, ...]
SIGNATURES: tuple[bytes, ...]

def changed(head: Head, decision: Any, authority: bytes | None = None, limit: int = 65536, most_fields: int = 256) -> Head:
    """Return the head that `decision` makes of `head`; `head` itself if that changes nothing. For
    tests.
    """
