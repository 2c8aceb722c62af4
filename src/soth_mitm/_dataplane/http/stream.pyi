from typing import Any

from typing_extensions import disjoint_base

from soth_mitm._dataplane.memory.waiter import Waiter
from soth_mitm._dataplane.transport.callbacks import EndpointCallbacks
from soth_mitm._dataplane.transport.endpoint import Endpoint

@disjoint_base
class StreamCallbacks(Waiter): ...

@disjoint_base
class Stream: ...

@disjoint_base
class HttpConnection(EndpointCallbacks):
    facts: Any
    @property
    def endpoint(self) -> Endpoint: ...
