from soth_mitm._dataplane.wire.head import Head

def upgrade_from(connect: Head) -> Head | None:
    """Return the upgrade of HTTP/1.1 that an extended CONNECT asks for, None if it has content. For tests."""

def switch_from(request: Head, response: Head) -> tuple[Head, bool]:
    """Return the 101 that a 2xx to an extended CONNECT means, and whether it answers the key of `request`. For tests."""
