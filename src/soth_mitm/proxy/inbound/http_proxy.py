"""The way of an HTTP proxy: a CONNECT names one destination, a request in absolute-form its own (RFC 9110 section 9.3.6)."""

from soth_mitm._dataplane.http1.encoder import own_explanation
from soth_mitm._dataplane.http1.framing import BodyReader
from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.addresses import parse_target
from soth_mitm.errors import WireError
from soth_mitm.proxy.client import Client
from soth_mitm.proxy.inbound.target import Target

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
# Enough to tell CONNECT from everything else
METHOD_BYTES = len(b"CONNECT ")
# The first byte of a TLS record and of SOCKS: the client's proxy URL has the wrong scheme
OTHER_PROTOCOLS = {0x16: "TLS", 4: "SOCKS", 5: "SOCKS"}


class HttpProxy:
    """See `Inbound`."""

    def refusal(self, status: int, reason: str) -> bytes:
        """Return a response."""
        return own_explanation(status, reason)

    async def target(self, client: Client) -> Target | None:
        """Return the target of a CONNECT; None for every other request."""
        head = await self._connect_head(client)
        if head is None:
            other = OTHER_PROTOCOLS.get(client.reader.peek()[0])
            if other is not None:
                raise WireError(f"this is an HTTP proxy and was spoken to in {other}; use an http:// proxy URL", side="client", status=400)
            return None
        try:
            host, port = parse_target(head.target)
        except ValueError as error:
            raise WireError(f"the target `{head.target}` {error}", side="client", status=400) from None
        return Target(host, port, head.target.rpartition(":")[0], ESTABLISHED)

    async def _connect_head(self, client: Client) -> Head | None:
        """Return the head of a CONNECT, taken off what has come; None, with nothing taken, when it begins otherwise."""
        reader, config = client.reader, client.generation.config
        parser = HeadReader(True, config.max_http_head_bytes, config.max_header_fields)
        data = reader.peek()
        parsed = None
        try:
            with reader.within(client.generation.client_head):
                # an empty line before the first request line is allowed (RFC 9112 section 2.2)
                while len(start := data.removeprefix(b"\r\n")) < METHOD_BYTES and b"\n" not in start and data[0] not in OTHER_PROTOCOLS:
                    data = await reader.read_more(len(data))
                if not start.startswith(b"CONNECT "):
                    return None
                while (parsed := parser.feed(data)) is None:
                    data = await reader.read_more(len(data))
        except TimeoutError:
            raise WireError("the request head did not arrive in time (timeouts.client_head_ms)", side="client", status=408) from None
        head, used = parsed
        # refuses a CONNECT that announces content
        BodyReader.of_request(head)
        reader.consume(used)
        return head
