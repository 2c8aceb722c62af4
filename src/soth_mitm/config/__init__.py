"""The configuration: what each key means, where it is read from, and what is checked.

`schema` says what a key is. `sections` and `tree` hold the keys. `loading` fills a tree from TOML, mappings and the environment. `strict`
is the preset. `not_built` lists keys without behaviour, `effect` finds keys that do nothing, `reference` writes the documentation.
"""

from soth_mitm.config.sections import (
    BodyConfig,
    ConnectionPoolConfig,
    FlowRuntimeConfig,
    HandlerConfig,
    InterceptionConfig,
    ProcessAttributionConfig,
    StreamsConfig,
    TimeoutsConfig,
    TlsConfig,
    UpstreamConfig,
)
from soth_mitm.config.tree import MitmConfig

__all__ = [
    "BodyConfig",
    "ConnectionPoolConfig",
    "FlowRuntimeConfig",
    "HandlerConfig",
    "InterceptionConfig",
    "MitmConfig",
    "ProcessAttributionConfig",
    "StreamsConfig",
    "TimeoutsConfig",
    "TlsConfig",
    "UpstreamConfig",
]
