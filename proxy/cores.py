"""How much of the machine's CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["cores"]


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The number of cores that this process may run on: its affinity, and where a container's share of CPU time is
    limited (cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`), no more than that share, rounded up."""
    allowed = len(os.sched_getaffinity(0))
    share = _share(root)
    return allowed if share is None else max(1, min(allowed, math.ceil(share)))


def _share(root: Path) -> float | None:
    """The limit in cores; None for none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = [(root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")]
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # "max"
    return share if share > 0 else None
