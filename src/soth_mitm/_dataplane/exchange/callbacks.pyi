from typing_extensions import disjoint_base

from soth_mitm._dataplane.http.stream import StreamCallbacks

@disjoint_base
class ExchangeCallbacks(StreamCallbacks): ...

class TunnelCallbacks(StreamCallbacks):
    """Base of what has directions."""
