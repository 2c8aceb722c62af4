import asyncio
from typing import Any, final

from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http.stream import StreamCallbacks
from soth_mitm._dataplane.upstream.pool import OriginPool

@final
class ConnectProbe(StreamCallbacks):
    def __new__(cls, settings: Settings, pool: OriginPool, future: asyncio.Future[Any]) -> ConnectProbe: ...
    def close(self) -> None: ...
