"""WebSocket (RFC 6455) with permessage-deflate (RFC 7692): frames, handshakes, messages. No socket, no loop."""
