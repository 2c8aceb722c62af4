from collections.abc import Callable
from typing import final

from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm._dataplane.flow import Route
from soth_mitm._dataplane.plane import Plane
from soth_mitm._dataplane.responding import Responding

CONTINUE: bytes

@final
class Exchange(Responding):
    def __init__(
        self,
        plane: Plane,
        client: Endpoint,
        on_end: Callable[[], object],
        *,
        router: Callable[[str | None, bytes], Route],
    ) -> None: ...
    def start(self) -> None: ...
    def decoded_apart(self, result: tuple[bytes, str | None] | None) -> None: ...
