"""A pair of simulated neighbours on loopback, with short timers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.sim.certificates import Certificate, make_certificate
from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.report import Report
from proxy.sim.twilio import TwilioConfig, place_calls
from proxy.transaction.timers import TimerSettings

QUICK = TimerSettings(t1_s=0.02, t2_s=0.08, t4_s=0.1)
"""64*T1 is 1.28 s."""

StartSim = Callable[..., Awaitable[OpenAiSim]]
Place = Callable[..., Awaitable[Report]]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost, with its CA."""
    directory: Path = tmp_path_factory.mktemp("certificate")
    return make_certificate(directory, ["localhost", "127.0.0.1"])


@pytest.fixture
async def start_openai(certificate: Certificate) -> AsyncIterator[StartSim]:
    """Starts simulated OpenAI sides that listen on a free port of each transport, and stops them after the test."""
    async with AsyncExitStack() as stack:

        async def start(**values: Any) -> OpenAiSim:
            values.setdefault("listen", ("udp:127.0.0.1:0", "tcp:127.0.0.1:0", "tls:127.0.0.1:0"))
            values.setdefault("timers", QUICK)
            if "http" not in values:
                values.setdefault("answer_after_ms", 5)
            config = OpenAiConfig(certificate=certificate.certificate, key=certificate.key, **values)
            return await stack.enter_async_context(OpenAiSim(config))

        yield start


@pytest.fixture
def place(certificate: Certificate) -> Place:
    """Places calls to a simulated OpenAI side over a transport."""

    async def run(sim: OpenAiSim, transport: str = "udp", **values: Any) -> Report:
        quick = {"rate": 200, "hold_ms": 10, "settle_s": 0.01, "timers": QUICK, "ca_file": str(certificate.ca_file)}
        return await place_calls(TwilioConfig(target=sim.uri(transport), **{**quick, **values}))

    return run
