"""Where peers and benchmark models live: outside the checkout, so that every clone uses the same ones."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """$PARROT_PEERS, or parrot-peers in the user's cache directory. It is made."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("PARROT_PEERS") or Path(cache) / "parrot-peers").expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path
