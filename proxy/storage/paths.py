"""Where the call store lies when nobody says where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["default_store"]

_NAME: Final = "calls.db"


def default_store() -> Path:
    """`calls.db` in the state directory that systemd gives (`StateDirectory=`), else in the user's own state directory,
    which is `~/.local/state/trunkline` unless XDG_STATE_HOME says otherwise."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given) / _NAME
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "trunkline" / _NAME
