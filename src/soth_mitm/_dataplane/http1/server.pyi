from collections.abc import Callable
from typing import final

from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http.stream import HttpConnection
from soth_mitm._dataplane.http1.stream import Http1Stream
from soth_mitm._dataplane.transport.endpoint import Endpoint

CONTINUE: bytes

@final
class Http1ServerConnection(HttpConnection):
    """The requests of one client connection.

    `router(scheme, authority)` says where a request goes. It is asked when what requests name
    changes. `scheme` is None unless the request line has a URL. `authority` is that of the URL, or
    else Host, or empty. `on_end()` is called once, when the connection is gone and every hook has
    returned.
    """

    def __new__(
        cls,
        settings: Settings,
        client: Endpoint,
        on_end: Callable[[], object],
        *,
        router: Callable[[str | None, bytes], Route],
    ) -> Http1ServerConnection: ...
    on_refused: Callable[[int, str], object] | None
    def start(self) -> None:
        """Take over the client's endpoint, with what lies in its read buffer."""

    def drain(self) -> None:
        """Close when the current exchange has ended, or now when there is none. What was switched
        to ends when it is quiet.
        """

    def abort(self) -> None:
        """Cut the connection and whatever goes on over it."""

    def has_flow(self, flow_id: int) -> bool:
        """Tell whether that flow is under way here."""

    def cut_flow(self, flow_id: int) -> None:
        """Cut that flow, if it is under way."""

    def take_turn(self) -> None:
        """Go on with the requests for which one turn of the loop was too short. Called by the loop."""

    def tunnel_ended(self) -> None:
        """The connections that had switched protocols are closing. Called by the tunnel."""

@final
class Http1ServerStream(Http1Stream): ...
