from collections.abc import Callable
from typing import final

from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm._dataplane.party import Party
from soth_mitm._dataplane.plane import Plane

@final
class Tunnel(Party):
    def __new__(cls, plane: Plane, client: Endpoint, upstream: Endpoint, on_end: Callable[[], object]) -> Tunnel: ...
    def start(self) -> None: ...
    def abort(self) -> None: ...
