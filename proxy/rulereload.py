"""Rule sets that are read again while calls go on: on SIGHUP, and when a file was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.reload import Reload
from proxy.rewrite.engine import RuleSet
from proxy.transport.watch import FileWatch

__all__ = ["RuleReload", "RuleSource"]

RuleSets = tuple[Mapping[str, RuleSet], str]
"""Rule sets by name, and the name of the default one."""


@dataclass(frozen=True, slots=True)
class RuleSource:
    """Where rule sets come from.

    Attributes:
        paths: gives the files, and the directories of files, to look at.
        load: reads and checks all of them. Raises SettingsError with every mistake.
        watch_s: how often to look whether one was changed; 0 for never.
    """

    paths: Callable[[], Sequence[Path]]
    load: Callable[[], RuleSets]
    watch_s: float = 1.0


class RuleReload:
    """Reads rule sets again and hands them over whole, or says why not. One reading at a time, in a thread.

    Args:
        source: where they come from.
        use: takes good rule sets; failed: takes what is wrong with bad ones. Both are called in the event loop.
    """

    def __init__(
        self,
        source: RuleSource,
        use: Callable[[Mapping[str, RuleSet], str], None],
        failed: Callable[[Sequence[str]], None],
    ) -> None:
        self._reload = Reload(source.load, lambda found: use(*found), failed)
        self._watch = FileWatch(source.paths, source.watch_s, self._reload.reload)

    def start(self) -> None:
        """Begin to look at the files."""
        self._watch.start()

    async def stop(self) -> None:
        """Look no more, and let a reading end."""
        self._watch.stop()
        await self._reload.stop()

    def reload(self) -> None:
        """Read the files again; during a reading, once more after it."""
        self._reload.reload()
