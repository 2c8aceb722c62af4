from typing import final

from soth_mitm._dataplane.wire.framer import Framer

@final
class GrpcFramer(Framer):
    def __new__(cls, budget: int, encoding: bytes | None = None, web: bool = False, text: bool = False) -> GrpcFramer: ...
    @property
    def trailers(self) -> bytes | None: ...

@final
class GrpcParts:
    """Cuts a stream of messages into what can be searched as it passes, and compressed messages, which cannot."""
