"""What a client begins with, once it was told that it may."""

from typing import NamedTuple, NoReturn

from soth_mitm._dataplane.exchange.relay import Tunnel
from soth_mitm.errors import WireError
from soth_mitm.proxy.alpn import HTTP2
from soth_mitm.proxy.client import Client
from soth_mitm.proxy.client_reader import ClientGone
from soth_mitm.proxy.client_tls import ClientTls
from soth_mitm.proxy.session import Session
from soth_mitm.proxy.tls_handshake import ALERT_DECODE_ERROR, ALERT_PROTOCOL_VERSION
from soth_mitm.tls.client_hello import (
    NEED_MORE,
    ClientHello,
    MalformedHello,
    may_become,
    parse_client_hello,
    parse_tunnelled_hello,
    sniff,
)


class Beginning(NamedTuple):
    """What a client began with.

    `kind` is what `sniff` calls it, "silence" if nothing came in time, "end" if the client ended without a word. `hello` is its whole
    ClientHello when that is TLS. `error` says why what began will not become a request or a ClientHello.
    """

    kind: str
    hello: ClientHello | None = None
    error: Exception | None = None


async def first_bytes(client: Client) -> Beginning:
    """Wait for what the client begins with, and examine it. `ClientGone` when the proxy drains before anything came."""
    reader, generation = client.reader, client.generation
    data = b""
    try:
        with reader.within(generation.client_first_bytes):
            data = await reader.read_more(0)
        with reader.within(generation.client_tls_handshake):
            while True:
                kind = sniff(data)
                if kind == "sslv2":
                    # tunnelled it might still become TLS, which nothing would examine
                    raise MalformedHello("an SSLv2-style ClientHello", ALERT_PROTOCOL_VERSION)
                if kind == "tls":
                    hello = parse_client_hello(data)
                    if hello is not NEED_MORE:
                        return Beginning(kind, hello)
                elif kind == "http2" and HTTP2 not in generation.spoken:
                    # it is refused as no good request
                    return Beginning("http")
                elif kind is not NEED_MORE:
                    return Beginning(kind)
                data = await reader.read_more(len(data))
    except (TimeoutError, MalformedHello, ClientGone) as error:
        if data:
            return Beginning(may_become(data), error=error)
        if isinstance(error, TimeoutError):
            return Beginning("silence")
        if reader.over:
            return Beginning("end")
        raise


async def refuse_beginning(tls: ClientTls, kind: str, error: Exception) -> NoReturn:
    """Refuse a client that began with something which will not become a request or a ClientHello."""
    if isinstance(error, MalformedHello):
        await tls.refuse_hello(error, error.alert)
    if kind == "http":
        if isinstance(error, TimeoutError):
            raise WireError(
                "the request line did not arrive in time (timeouts.client_tls_handshake_ms)", side="client", status=408
            ) from None
        raise error
    if isinstance(error, ClientGone):
        error = ConnectionResetError("the client closed the connection in the middle of its ClientHello")
    await tls.failed(error, shown=False)
    raise ClientGone


async def hello_in_tunnel(client: Client, session: Session, tunnel: Tunnel) -> ClientHello | None:
    """Return the ClientHello that a client begins with in a tunnel; None if it begins otherwise, or the tunnel has ended.

    Raises `MalformedHello`, and `TimeoutError` when a hello that has begun does not end in time.
    """
    reader = client.reader
    while not reader.peek() and not reader.over and session.holder is tunnel:
        await reader.changed()
    with reader.within(client.generation.client_tls_handshake):
        while session.holder is tunnel:
            hello = parse_tunnelled_hello(reader.peek())
            if hello is not NEED_MORE:
                return hello
            if reader.over:
                if not reader.peek():
                    break
                raise MalformedHello("the client ended in the middle of its ClientHello", ALERT_DECODE_ERROR)
            await reader.changed()
    return None
