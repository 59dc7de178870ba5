"""What every test may use: the independent SIP tools of the system."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

_MISSING = "missing tool: "


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes under test keep their call store away from the user's own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    patch.delenv("STATE_DIRECTORY", raising=False)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """A function that takes a program's name (``"sipp"``) and returns its path.

    Where the program is missing the test is skipped, and the summary of the run says so; with ``CI`` set in the
    environment it fails instead. ``make system-tools`` installs the programs.
    """

    def find(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin")  # servers, for users other than root
        if path is not None:
            return path
        if os.environ.get("CI", "") not in ("", "0", "false"):
            pytest.fail(f"{_MISSING}{name} (CI must have it: see scripts/system-tools)", pytrace=False)
        pytest.skip(f"{_MISSING}{name}")

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that waits longest begins first, so that the others run meanwhile."""
    items.sort(key=lambda item: "test_sipp_session_timers" not in item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tools that were missing, and how many tests did not run for it."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, found, tool = reason.partition(_MISSING)
        if found:
            counts[tool] += 1
    if counts:
        names = ", ".join(f"{tool} ({count} tests)" for tool, count in sorted(counts.items()))
        terminalreporter.section("TOOLS MISSING", sep="!", red=True, bold=True)
        terminalreporter.line(f"Skipped for lack of: {names}. `make system-tools` installs them (as root).", red=True)
