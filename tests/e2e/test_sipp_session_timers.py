"""Session timers with SIPp on both sides, over UDP, TCP and TLS at the same time: a minute and a half of waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sipp.session_timers import SESSION_TIMER_CASES
from tests.support.worlds import World, run_world

WORLD = World(SESSION_TIMER_CASES, "calls: {session_expires_s: 90}", limit_s=120)
TRANSPORTS = ("udp", "tcp", "tls")


@pytest.mark.timeout(200)
def test_session_timers_over_every_transport(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    sipp = require_tool("sipp")

    def run(transport: str) -> None:
        folder = tmp_path / transport
        folder.mkdir()
        run_world(WORLD, sipp, folder, transport)

    with ThreadPoolExecutor(len(TRANSPORTS)) as pool:
        for done in [pool.submit(run, transport) for transport in TRANSPORTS]:
            done.result()
