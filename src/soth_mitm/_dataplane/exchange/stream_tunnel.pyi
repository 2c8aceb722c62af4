from typing import final

from soth_mitm._dataplane.http.stream import HttpConnection, Stream, StreamCallbacks

@final
class EndpointStream(Stream):
    """One whole connection as a stream without framing."""

@final
class EndpointOwner(HttpConnection):
    """What hears of the endpoint of an `EndpointStream`."""

@final
class StreamTunnel(StreamCallbacks):
    """Relays between two streams from now on, beginning with what lies in them."""

    def take_turn(self) -> None:
        """Go on with messages for which one turn of the loop was too short. Called by the loop."""
