from typing import final

from soth_mitm._dataplane.transport.callbacks import EndpointCallbacks
from soth_mitm._dataplane.upstream.pool import Upstream

@final
class Pin(EndpointCallbacks):
    def __new__(cls, owner: EndpointCallbacks, upstream: Upstream) -> Pin: ...
