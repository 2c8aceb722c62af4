from collections.abc import Callable
from typing import final

from soth_mitm._dataplane.exchange.flow import Route
from soth_mitm._dataplane.exchange.responding import Responding
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.transport.endpoint import Endpoint

CONTINUE: bytes

@final
class Exchange(Responding):
    def __init__(
        self,
        settings: Settings,
        client: Endpoint,
        on_end: Callable[[], object],
        *,
        router: Callable[[str | None, bytes], Route],
    ) -> None: ...
    def start(self) -> None: ...
    def decoded_apart(self, result: tuple[bytes, str | None] | None) -> None: ...
