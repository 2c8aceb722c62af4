from typing import Any, final

from soth_mitm._dataplane.http.settings import Plane
from soth_mitm._dataplane.memory.party import Party
from soth_mitm._dataplane.transport.endpoint import Endpoint

def bytes_unsent(connection: Any) -> int: ...
def say_goodbye(endpoint: Endpoint, plane: Plane) -> None: ...

@final
class Farewell(Party):
    def __new__(cls, endpoint: Endpoint, plane: Plane) -> Farewell: ...
