"""Rules that change under a running process, as Kubernetes replaces the files of a ConfigMap."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.twilio import TwilioConfig, place_calls
from tests.e2e.test_workers import workers_of
from tests.support.processes import Trunkline, free_port, running_trunkline
from tests.support.volumes import publish

RULES = """version: 1
name: site
description: Rules of this site.
rules:
  - id: {name}
    why: Something to tell one version from the other.
    do:
      - include: twilio-openai
"""


def test_rules_of_a_config_map_are_taken_up_as_they_change_and_by_a_signal(tmp_path: Path) -> None:
    volume = tmp_path / "rules"
    publish(volume, {"site.yaml": RULES.format(name="first")})
    target = f"sip:127.0.0.1:{free_port()}"
    with running_trunkline(tmp_path, target, "--rules", str(volume), config="rules_watch_s: 0.1\n", rules="") as proxy:
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for("rules-reloaded", 1)
        publish(volume, {"site.yaml": RULES.format(name="second")})
        proxy.wait_for("rules-reloaded", 2)
        publish(volume, {"site.yaml": "rules: ["})
        (failed,) = proxy.wait_for("rules-reload-failed", 1)
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for("rules-reload-failed", 2)
        publish(volume, {"site.yaml": RULES.format(name="fourth")})
        reloaded = proxy.wait_for("rules-reloaded", 3)
    assert "site.yaml" in failed["problems"][0]
    versions = {event["rules"]["site"] for event in reloaded}
    assert len(versions) == 3


SETTINGS = """targets: {{main: "sip:proj_x@127.0.0.1:{target};transport=udp"}}
retry: {{max_attempts: 1}}
allow: [{allow}]
log_level: {level}
{more}
"""


class Change:
    """The settings file of a process, which is written anew and taken up by a signal."""

    def __init__(self, proxy: Trunkline) -> None:
        self.proxy = proxy

    def write(self, target: int, allow: str = "127.0.0.0/8", level: str = "warning", more: str = "") -> None:
        text = SETTINGS.format(target=target, allow=allow, level=level, more=more)
        (self.proxy.directory / "trunkline.yaml").write_text(text)
        self.proxy.process.send_signal(signal.SIGHUP)

    def logged(self, event: str, count: int) -> list[dict[str, Any]]:
        """The log's lines of a kind, once there are so many."""
        end, found = time.monotonic() + 15, list[dict[str, Any]]()
        while time.monotonic() < end:
            lines = [json.loads(line) for line in self.proxy.output().splitlines() if line.startswith("{")]
            found = [line for line in lines if line["event"] == event]
            if len(found) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{len(found)} of {count} {event} in {self.proxy.output()}")


async def call(proxy: Trunkline, seed: int, patience_s: float = 15.0) -> Counter[str]:
    """Two calls; what became of them."""
    report = await place_calls(
        TwilioConfig(
            target=f"sip:127.0.0.1:{proxy.port}",
            calls=2,
            rate=50,
            hold_ms=10,
            media_security="rtp",
            seed=seed,
            patience_s=patience_s,
        )
    )
    return Counter(result.outcome for result in report.results)


async def test_settings_are_taken_up_by_all_workers_and_their_successors(tmp_path: Path) -> None:
    sims = [OpenAiSim(OpenAiConfig(listen=("udp:127.0.0.1:0",), answer_after_ms=0)) for _ in range(2)]
    async with sims[0] as first, sims[1] as second:
        ports = [sim.listeners[0].port for sim in (first, second)]
        before = SETTINGS.format(target=ports[0], allow="127.0.0.0/8", level="warning", more="")
        with running_trunkline(tmp_path, "", "--workers", "2", config=before, allow="", log_level="") as proxy:
            change = Change(proxy)
            assert await call(proxy, 1) == {"200 OK": 2}
            assert len(first.records) == 2

            change.write(ports[1], level="info", more="drain_s: 1\ntimers: {t4_s: 4}")
            await asyncio.to_thread(change.logged, "settings-reloaded", 2)
            (waiting, _) = await asyncio.to_thread(change.logged, "settings-waiting", 2)
            assert waiting["settings"] == ["timers"]
            assert await call(proxy, 2) == {"200 OK": 2}
            assert (len(first.records), len(second.records)) == (2, 2)
            await asyncio.to_thread(change.logged, "call-end", 2)

            change.write(ports[0], more="drain_s: soon")
            (failed,) = await asyncio.to_thread(change.logged, "settings-reload-failed", 1)
            assert failed["problems"][0].startswith(f"{tmp_path / 'trunkline.yaml'}:5: drain_s: ")

            for worker in workers_of(proxy):
                os.kill(worker, signal.SIGKILL)
            await asyncio.to_thread(change.logged, "started", 2)
            assert await call(proxy, 3) == {"200 OK": 2}
            assert (len(first.records), len(second.records)) == (2, 4), "the mistake changed nothing"

            change.write(ports[1], allow="192.0.2.1", level="error", more="drain_s: 0")
            for _ in range(20):
                if await call(proxy, 4, 1.0) == {"no answer": 2}:
                    break
            else:
                raise AssertionError("strangers may call")
