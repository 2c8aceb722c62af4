"""A CA that the program brings itself, with `MitmProxyBuilder.with_ca`."""

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from soth_mitm import CaError, MitmConfig, MitmProxyBuilder, generate_ca, load_ca_from_files


def test_a_ca_in_memory_signs_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path))
    config = MitmConfig(bind="127.0.0.1:0")
    config.interception.destinations.append("localhost:443")
    ca = generate_ca()
    with MitmProxyBuilder(config).with_ca(ca).build().start_in_thread() as handle:
        assert handle.ca.fingerprint == ca.fingerprint
        with pytest.raises(CaError, match=r"tls\.ca_cert_path"):
            _ = handle.ca_certificate_path
    assert list(tmp_path.iterdir()) == []


def test_a_given_ca_is_written_to_the_configured_paths(tmp_path: Path, make_config: Callable[..., MitmConfig]) -> None:
    config = make_config()
    config.tls.ca_cert_path, config.tls.ca_key_path = tmp_path / "given" / "ca.pem", tmp_path / "given" / "key.pem"
    ca = generate_ca()
    with MitmProxyBuilder(config).with_ca(ca).build().start_in_thread() as handle:
        assert handle.ca_certificate_path == config.tls.ca_cert_path
    assert load_ca_from_files(config.tls.ca_cert_path, config.tls.ca_key_path).fingerprint == ca.fingerprint
    if sys.platform != "win32":
        assert stat.S_IMODE(config.tls.ca_key_path.stat().st_mode) == 0o600
