from typing import Any, final

from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.transport.callbacks import EndpointCallbacks
from soth_mitm._dataplane.transport.endpoint import Endpoint

def bytes_unsent(connection: Any) -> int: ...
def linger_and_close(endpoint: Endpoint, settings: Settings) -> None: ...

@final
class LingeringClose(EndpointCallbacks):
    def __new__(cls, endpoint: Endpoint, settings: Settings) -> LingeringClose: ...
