"""The proxy, origins and clients of the end-to-end tests."""

from e2e.conftest import make_config, origin, origin_ca, plain_origin, proxy

__all__ = ["make_config", "origin", "origin_ca", "plain_origin", "proxy"]
