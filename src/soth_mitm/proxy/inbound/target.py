"""What a client asks for, and what a way of asking must offer."""

from typing import NamedTuple, Protocol

from soth_mitm.proxy.client import Client


class Target(NamedTuple):
    """A destination to which a client wants to speak."""

    host: str
    port: int
    spelling: str
    """The host as the client wrote it."""
    reply: bytes
    """What tells the client that it may begin; empty where it expects nothing."""


class Inbound(Protocol):
    """A way in which clients say where they want to connect."""

    def refusal(self, status: int, reason: str) -> bytes:
        """Return what refuses a client that has not been told yet that it may begin."""

    async def target(self, client: Client) -> Target | None:
        """Return the destination that the client names, and take what names it off what it has sent, some of which is there.

        None, with nothing taken: requests follow that each name a destination of their own. Raises `WireError` to refuse the client,
        `ClientGone` when it leaves.
        """
