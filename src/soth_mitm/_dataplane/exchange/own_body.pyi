from typing import Any, final

from soth_mitm._dataplane.memory.waiter import Waiter

NAME: str

@final
class OwnBody(Waiter):
    async def drive(self) -> None:
        """Take items, each when it is wanted, then close the iterable. Run by its task."""
    def tell_owner(self) -> None:
        """There is an item, or an end. Called by the loop."""
    def ended(self, task: Any) -> None:
        """Its task is over. Called by the loop."""
