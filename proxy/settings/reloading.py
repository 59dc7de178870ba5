"""Which settings can change under a running process."""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.settings.model import Settings

__all__ = ["FIXED", "TakenUp", "take_up"]

FIXED: Final = (
    "config",
    "listen",
    "public_address",
    "timers",
    "rules_watch_s",
    "redaction",
    "store",
    "admin",
    "webhook",
    "hep",
    "otel",
    "syslog",
    "events_file",
    "workers",
)
"""Settings that need a restart."""


class TakenUp(NamedTuple):
    """The outcome of a change.

    Attributes:
        settings: the new ones, with those that need a restart as they were.
        changed: the names of what is different and was taken up. waiting: of what is different and needs a restart.
    """

    settings: Settings
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def take_up(running: Settings, read: Settings) -> TakenUp:
    """What becomes of running settings when others were read."""
    kept = {name: getattr(running, name) for name in FIXED}
    different = [name for name in Settings.model_fields if getattr(running, name) != getattr(read, name)]
    waiting = [name for name in different if name in FIXED]
    tls = read.tls
    if tls.watch_s != running.tls.watch_s:
        waiting.append("tls.watch_s")
        tls = tls.model_copy(update={"watch_s": running.tls.watch_s})
    changed = [name for name in different if name not in FIXED and (name != "tls" or tls != running.tls)]
    settings = read.model_copy(update={**kept, "tls": tls})
    return TakenUp(settings, tuple(changed), tuple(waiting))
