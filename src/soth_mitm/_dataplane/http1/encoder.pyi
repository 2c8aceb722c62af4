from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.head_edits import HeadEdits

def rewrite_request(head: Head, keep_upgrade: bool = False, authority: str = "", edits: HeadEdits | None = None) -> bytes: ...
def rewrite_response(
    head: Head,
    close: bool = False,
    keep_alive_10: bool = False,
    keep_upgrade: bool = False,
    to_10: bool = False,
    edits: HeadEdits | None = None,
) -> bytes: ...
def own_explanation(status: int, text: str) -> bytes:
    """Return a whole answer that says `text` in one line and closes the connection."""
