"""The proxy, origins and clients of the end-to-end tests."""

from e2e.conftest import journal, make_config, origin, origin_ca, plain_origin, plain_tap, proxy, tap

__all__ = ["journal", "make_config", "origin", "origin_ca", "plain_origin", "plain_tap", "proxy", "tap"]
