from typing import final

from soth_mitm._dataplane.memory.waiter import Waiter

@final
class HookQueue(Waiter): ...
