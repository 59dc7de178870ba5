"""Every seed through its target, and a short coverage-guided run of each: `make fuzz` runs them for longer."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

SECONDS = 2
HAS_WHEEL = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14)
SEEDS = [path for name in TARGETS for path in sorted((CORPUS / name).iterdir())]
ROOT = Path(__file__).parents[2]


def test_every_target_has_seeds_and_they_are_small() -> None:
    assert {path.parent.name for path in SEEDS} == set(TARGETS)
    assert sum(path.stat().st_size for path in SEEDS) < 100_000


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_seed(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


@pytest.mark.timeout(150)
def test_short_runs_find_nothing(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI", "") not in ("", "0", "false") and HAS_WHEEL:
            pytest.fail("missing tool: atheris (CI must have it: `make dev` installs it)", pytrace=False)
        pytest.skip("missing tool: atheris")
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", ",".join(TARGETS), str(SECONDS), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    executed = [line for line in run.stderr.splitlines() if "number_of_executed_units" in line]
    assert len(executed) == len(TARGETS)
    assert min(int(line.split()[-1]) for line in executed) > 50
