from typing import final

from soth_mitm._dataplane.exchange.callbacks import TunnelCallbacks
from soth_mitm._dataplane.http.stream import HttpConnection, Stream

@final
class EndpointStream(Stream):
    """One whole connection as a stream without framing."""

@final
class EndpointOwner(HttpConnection):
    """What hears of the endpoint of an `EndpointStream`."""

@final
class StreamTunnel(TunnelCallbacks):
    """Relays between two streams from now on, beginning with what lies in them."""

    def take_turn(self) -> None:
        """Go on with messages for which one turn of the loop was too short. Called by the loop."""
    def put_in(self) -> None:
        """Send the messages of the handler's that wait, as far as they can be sent now. Called by the loop."""
    def fault(self) -> tuple[int, bytes]:
        """Return code and reason of the Close for the violation of a side."""
