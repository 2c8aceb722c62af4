"""What every TLS context of ours has in common, whichever side it faces."""

from __future__ import annotations

import os
import ssl
import sys
from typing import Literal

MinVersion = Literal["tls1.2", "tls1.3"]

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
    keylog = os.environ.get("SSLKEYLOGFILE")
    if keylog and not sys.flags.ignore_environment:
        context.keylog_filename = keylog
