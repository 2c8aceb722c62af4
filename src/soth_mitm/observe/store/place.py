"""Where the flow store of this user lies, unless a path is given."""

import os
import sys
from pathlib import Path

from soth_mitm.errors import CaError, StoreError
from soth_mitm.tls.ca_files import state_directory

NAME = "flows.db"


def default_store_path() -> Path:
    """Return the path in the user's state directory (SOTH_MITM_STATE_DIR). `StoreError` where there is none."""
    try:
        return state_directory(sys.platform, os.environ, Path.home) / NAME
    except CaError as error:
        raise StoreError("this user has no home directory to keep flows in; give --store FILE, or set SOTH_MITM_STATE_DIR") from error
