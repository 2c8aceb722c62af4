"""The other side of a TLS connection, which is OpenSSL over memory."""

from __future__ import annotations

import ssl


class TlsPeer:
    """Reads whatever comes. `failed` says that it gave up, `notified` and `ended` who has said close_notify: this side, the other one."""

    def __init__(self, context: ssl.SSLContext, server_side: bool, name: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, None if server_side else name)
        self.secured = self.failed = self.ended = self.notified = False
        self.received = b""
        self.written = b""
        self.issuer: object = None
        """Who issued the certificate that was shown, as the `ssl` module has it."""

    def advance(self) -> None:
        try:
            if not self.secured:
                self.tls.do_handshake()
                self.secured = True
                self.issuer = (self.tls.getpeercert() or {}).get("issuer")
            while not self.ended:
                data = self.tls.read(1 << 16)
                self.received += data
                self.ended = not data
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError:
            self.failed = True

    def write(self, data: bytes) -> None:
        if self.secured and not (self.failed or self.notified) and data:
            self.tls.write(data)
            self.written += data

    def notify(self) -> None:
        self.notified = True
        try:
            self.tls.unwrap()
        except (ssl.SSLError, ValueError):
            # it waits for ours, or there is nothing to end
            return
