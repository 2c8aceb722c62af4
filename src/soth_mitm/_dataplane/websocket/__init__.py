"""WebSocket (RFC 6455), permessage-deflate (RFC 7692): frames, handshakes, messages. No socket."""
