"""Session timers with SIPp on both sides, over UDP, TCP and TLS: a minute each, so for `make test-slow`, not for CI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sipp.session_timers import SESSION_TIMER_CASES
from tests.support.worlds import World, run_world

WORLD = World(SESSION_TIMER_CASES, "calls: {session_expires_s: 90}", limit_s=100)


@pytest.mark.timeout(170)
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_session_timers(transport: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    run_world(WORLD, require_tool("sipp"), tmp_path, transport)
