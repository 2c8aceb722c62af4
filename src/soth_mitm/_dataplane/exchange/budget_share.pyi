from typing import final

from soth_mitm._dataplane.memory.waiter import Waiter

@final
class BudgetShare(Waiter):
    """Counts what an exchange keeps for the handler, and pauses the exchange while memory is short."""

    def go_on(self) -> None:
        """Wait no more, since nothing is held. Called by the loop."""
