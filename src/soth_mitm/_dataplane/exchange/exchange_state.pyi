from typing_extensions import disjoint_base

from soth_mitm._dataplane.exchange.callbacks import ExchangeCallbacks

@disjoint_base
class ExchangeState(ExchangeCallbacks): ...
