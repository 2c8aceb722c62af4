from typing_extensions import disjoint_base

from soth_mitm._dataplane.exchange.exchange_upgrades import ExchangeUpgrades

DIGESTS: tuple[bytes, ...]

@disjoint_base
class ExchangeCredentials(ExchangeUpgrades): ...
