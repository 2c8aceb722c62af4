from typing import final

from soth_mitm._dataplane.memory.waiter import Waiter

class ContentStage(Waiter): ...

@final
class SendStage(ContentStage): ...
