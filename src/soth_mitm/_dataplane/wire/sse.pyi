from typing import final

from soth_mitm._dataplane.wire.framer import Framer

@final
class SseFramer(Framer):
    def __new__(cls, budget: int) -> SseFramer: ...
