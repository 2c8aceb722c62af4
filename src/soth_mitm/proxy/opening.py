"""What a client begins with inside its CONNECT, told before anything is answered."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from soth_mitm.tls.client_hello import NEED_MORE, ClientHello, parse_client_hello, sniff

TLS_RECORD = b"\x16"


class ConnectionOver(Exception):
    """The client is gone; there is nothing left to do for it."""


async def read_opening(
    read_more: Callable[[int], Awaitable[bytes]], deadline: AbstractContextManager[object]
) -> tuple[str, ClientHello | None]:
    """Return the protocol, and the whole ClientHello where it is "tls". Nothing is taken away from what came.

    `read_more(count)` returns all that came once that is more than `count` bytes, or raises `ConnectionOver`. Silence until the
    `deadline` and what ends too early to be told are "other". Raises `MalformedHello`, and `TimeoutError` for a ClientHello that does not
    end in time.
    """
    data = b""
    try:
        with deadline:
            while True:
                data = await read_more(len(data))
                kind = sniff(data)
                if kind is NEED_MORE:
                    continue
                if kind != "tls":
                    return kind, None
                hello = parse_client_hello(data)
                if hello is not NEED_MORE:
                    return kind, hello
    except TimeoutError:
        if data.startswith(TLS_RECORD):
            raise
    except ConnectionOver:
        if not data or data.startswith(TLS_RECORD):
            raise
    return "other", None
