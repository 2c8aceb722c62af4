from typing import final

from soth_mitm._dataplane.memory.party import Party
from soth_mitm._dataplane.upstream.pool import Upstream

@final
class Pin(Party):
    def __new__(cls, owner: Party, upstream: Upstream) -> Pin: ...
