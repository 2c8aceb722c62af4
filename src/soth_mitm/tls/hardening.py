"""What every TLS context of ours has in common, whichever side it faces."""

from __future__ import annotations

import os
import ssl
import sys
from typing import Literal

MinVersion = Literal["tls1.2", "tls1.3"]

KEY_LOG = "SSLKEYLOGFILE"

_VERSIONS: dict[str, ssl.TLSVersion] = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}


def harden(context: ssl.SSLContext, min_version: MinVersion) -> None:
    """Set the lowest version; refuse compression (CRIME) and renegotiation; log the session keys if SSLKEYLOGFILE says so.

    Raises `ValueError` for a version that is not one of `MinVersion` and `OSError` when the key log cannot be opened.
    """
    try:
        context.minimum_version = _VERSIONS[min_version]
    except KeyError:
        raise ValueError(f"min_version must be tls1.2 or tls1.3, not {min_version!r}") from None
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    path = key_log_path()
    if path is not None:
        _make_private(path)
        context.keylog_filename = path


def key_log_path() -> str | None:
    """Return the file that session keys are written to, None for the usual case of none."""
    return None if sys.flags.ignore_environment else os.environ.get(KEY_LOG) or None


def check_key_log() -> None:
    """Raise `OSError` if session keys are to be logged and cannot be."""
    path = key_log_path()
    if path is not None:
        _make_private(path)


def _make_private(path: str) -> None:
    # whoever reads it can decrypt the traffic; OpenSSL would make it as the umask says
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
