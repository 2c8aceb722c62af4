from typing import final

from soth_mitm._dataplane.wire.framer import Framer

@final
class EventStreamFramer(Framer):
    def __new__(cls, budget: int) -> EventStreamFramer: ...
