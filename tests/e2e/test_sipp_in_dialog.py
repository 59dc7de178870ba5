"""Whole calls and what happens in them, with SIPp on every side, over UDP, TCP and TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sipp.by_setting import LIFETIME_CASES, TRANSFER_CASES
from tests.sipp.in_call import in_call_cases
from tests.sipp.set_up import SET_UP_CASES
from tests.support.worlds import World, run_world

EXECUTE = "calls: {refer: execute, relay_early_media: false, reliable: always, session_expires_s: 90}"

WORLDS = {
    "in-call": World(in_call_cases()),
    "set-up": World(SET_UP_CASES, "users: {alice: wonderland}\ndigest_algorithms: [MD5, SHA-256]"),
    "transfers": World(TRANSFER_CASES, EXECUTE),
    "lifetimes": World(LIFETIME_CASES, "calls: {probe_s: 2, max_call_s: 5}", calls=1),
}


@pytest.mark.timeout(170)
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("world", WORLDS)
def test_calls(world: str, transport: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    run_world(WORLDS[world], require_tool("sipp"), tmp_path, transport)
