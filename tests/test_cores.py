"""How many cores there are to be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.cores import cores
from proxy.settings import Settings
from proxy.workers import MAX_WORKERS


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ("max 100000", 1000),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("nonsense", 1000),
        ("0 0", 1000),
    ],
)
def test_a_containers_share_of_cpu_time_counts(tmp_path: Path, limit: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert cores(tmp_path) == min(len(os.sched_getaffinity(0)), most)


@pytest.mark.parametrize(("quota", "most"), [("-1", 1000), ("100000", 1)])
def test_the_older_way_to_say_it_too(tmp_path: Path, quota: str, most: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == min(len(os.sched_getaffinity(0)), most)


def test_without_limits_it_is_the_affinity(tmp_path: Path) -> None:
    assert cores(tmp_path) == len(os.sched_getaffinity(0))


def test_there_are_as_many_workers_as_cores_by_default() -> None:
    given = {"listen": ("udp:127.0.0.1:5060",), "targets": {"x": {"uri": "sip:127.0.0.1"}}}
    assert Settings(**given).worker_count() == min(cores(), MAX_WORKERS)  # type: ignore[arg-type]
    assert Settings(**given, workers=3).worker_count() == 3  # type: ignore[arg-type]
