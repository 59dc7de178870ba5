"""Rules that change under a running process, as Kubernetes replaces the files of a ConfigMap."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.processes import free_port, running_trunkline
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
