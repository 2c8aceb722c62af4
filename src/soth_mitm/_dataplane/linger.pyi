from typing import final

from soth_mitm._dataplane.deadline import DeadlineQueue
from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm._dataplane.party import Party

def say_goodbye(endpoint: Endpoint, queue: DeadlineQueue) -> None: ...

@final
class Farewell(Party):
    def __new__(cls, endpoint: Endpoint, queue: DeadlineQueue) -> Farewell: ...
