from typing import Any

from typing_extensions import disjoint_base

from soth_mitm._dataplane.transport.endpoint import Endpoint

@disjoint_base
class OutboundEndpoint(Endpoint):
    facts: Any
