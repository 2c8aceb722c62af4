from typing import final

from soth_mitm._dataplane.wire.framer import Framer

@final
class NdjsonFramer(Framer):
    def __new__(cls, budget: int) -> NdjsonFramer: ...

@final
class JsonSeqFramer(Framer):
    def __new__(cls, budget: int) -> JsonSeqFramer: ...
