from typing import Any, final

from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm._dataplane.party import Party
from soth_mitm._dataplane.plane import Plane

def bytes_unsent(connection: Any) -> int: ...
def say_goodbye(endpoint: Endpoint, plane: Plane) -> None: ...

@final
class Farewell(Party):
    def __new__(cls, endpoint: Endpoint, plane: Plane) -> Farewell: ...
