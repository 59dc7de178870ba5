"""What was measured so far, in a file with one line for each run, so that an interrupted session can go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.copies import fingerprint
from benchmarks.load import LoadError

__all__ = ["Session"]

Figures = Mapping[str, Any]


class Session:
    """The runs of one session.

    Args:
        out: the folder of its file, `runs.jsonl`.
        resume: use the runs in it that were taken of the same source, instead of beginning anew.
        planned_s: about how long all runs take, for what is said on the way.
    """

    def __init__(self, out: Path, *, resume: bool, planned_s: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._file = out / "runs.jsonl"
        self._source = fingerprint()
        self._began = time.monotonic()
        self._planned_s = planned_s
        self._expected_s = 0.0
        self.runs: dict[str, Figures] = {}
        if resume and self._file.exists():
            for line in self._file.read_text().splitlines():
                run = json.loads(line)
                if run["source"] == self._source and "error" not in run["figures"]:
                    self.runs[run["key"]] = run["figures"]
        else:
            self._file.unlink(missing_ok=True)

    def take(self, key: str, about_s: float, work: Callable[[], Figures]) -> Figures:
        """The figures of a run: those that are there, or new ones.

        A run that can't be done, and not at the second attempt either, gives `{"error": why}`; the others go on.
        """
        self._expected_s += about_s
        if key in self.runs:
            return self.runs[key]
        try:
            figures = _at_most_twice(work)
        except LoadError as error:
            figures = {"error": str(error)}
            print(f"  {key}: {error}", flush=True)
        self.runs[key] = figures
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._file.open("a") as lines:
            lines.write(json.dumps({"key": key, "source": self._source, "at": at, "figures": figures}) + "\n")
        return figures

    def left(self) -> str:
        """About how long it will still take."""
        left_s = max(0.0, self._planned_s - self._expected_s)
        return f"about {left_s / 60:.0f} min left" if left_s > 90 else "nearly done"


def _at_most_twice(work: Callable[[], Figures]) -> Figures:
    """What failed may have met somebody else: on a port, for example."""
    try:
        return work()
    except LoadError:
        return work()
