"""Handlers for daily cases, to be put into a `Chain` or used alone.

>>> from soth_mitm import Chain
>>> from soth_mitm import rules
>>> handler = Chain(rules.block_hosts("*.telemetry.example:*"), rules.set_header("X-Team", "search", hosts=["api.example.com:443"]))

`hosts` are destination patterns, as in the configuration; a request is judged by the authority that it names. A `url` is a scheme, a host
pattern and a path, which may hold `*` for any characters: `https://api.example.com/v1/*`. A path pattern without `?` is compared with the
path without its query. What is compared is the path as it came, so it decides what is answered or changed, not what is safe.
"""

from soth_mitm.rules.block_hosts import block_hosts
from soth_mitm.rules.map_local import map_local
from soth_mitm.rules.map_remote import map_remote
from soth_mitm.rules.mock_json import mock_json
from soth_mitm.rules.redact import redact
from soth_mitm.rules.set_header import set_header

__all__ = ["block_hosts", "map_local", "map_remote", "mock_json", "redact", "set_header"]
