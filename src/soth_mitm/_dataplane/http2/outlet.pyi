from typing import final

from soth_mitm._dataplane.http2.session import Outlet

@final
class EndpointOutlet(Outlet):
    """Writes to an endpoint."""
