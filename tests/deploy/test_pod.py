"""The pod run as a cluster would: its command, environment and volumes; its probes; its files as they change."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.deploy.manifests import Objects, container, of_kind, secrets
from tests.support.processes import free_port
from tests.support.volumes import publish

LIMIT_S = 100.0


class Pod:
    """The container's process, in directories of the test and on ports that are free.

    Args:
        objects: what was built. place: an empty directory. workers: in place of the number in the settings.
    """

    def __init__(self, objects: Objects, place: Path, workers: int = 1) -> None:
        self.container = container(objects)
        self._maps = of_kind(objects, "ConfigMap")
        self._ports = {5060: free_port(), 5061: free_port(), 8080: free_port()}
        self._place = place
        self._log = place / "log.jsonl"
        self._workers = workers
        (settings,) = [item["data"] for name, item in self._maps.items() if name.startswith("trunkline-settings")]
        for directory in ("etc", "state"):
            (place / directory).mkdir()
        (place / "etc" / "trunkline.yaml").write_text(self.here(settings["trunkline.yaml"]))
        publish(place / "etc" / "rules", self.rules())
        self.new_certificate()

    def rules(self) -> dict[str, str]:
        """The files of the ConfigMap for rules."""
        files: dict[str, str] = self._maps["trunkline-rules"]["data"]
        return files

    def replace_rules(self, files: Mapping[str, str]) -> None:
        """The ConfigMap was changed."""
        publish(self._place / "etc" / "rules", files)

    def new_certificate(self) -> str:
        """The Secret was changed. Gives the certificate, without its chain."""
        made = trustme.CA().issue_cert("trunkline-0.sip.example.com")
        chain = "".join(part.bytes().decode() for part in made.cert_chain_pems)
        publish(self._place / "etc" / "tls", {"tls.crt": chain, "tls.key": made.private_key_pem.bytes().decode()})
        return made.cert_chain_pems[0].bytes().decode().strip()

    def shown_certificate(self) -> str:
        """The certificate that a caller by TLS sees."""
        return ssl.get_server_certificate(("127.0.0.1", self._ports[5061])).strip()

    def here(self, text: str) -> str:
        """A text of the manifests with our directories, ports and loopback in it."""
        text = text.replace("/etc/trunkline", str(self._place / "etc")).replace(
            "/var/lib/trunkline", str(self._place / "state")
        )
        for port, ours in self._ports.items():
            text = text.replace(f":{port}", f":{ours}")
        return text.replace("0.0.0.0", "127.0.0.1")

    def environment(self) -> dict[str, str]:
        """Its environment; what a Secret holds is that of the example."""
        known = {secret["metadata"]["name"]: secret["stringData"] for secret in secrets()}
        values = {"TRUNKLINE_RULES_WATCH_S": "0.1", "TRUNKLINE_TLS__WATCH_S": "0.1"}
        values["TRUNKLINE_WORKERS"] = str(self._workers)
        for item in self.container["env"]:
            reference = item.get("valueFrom", {}).get("secretKeyRef")
            text = known[reference["name"]][reference["key"]] if reference else item.get("value", "trunkline-0")
            values[item["name"]] = self.here(text.replace("$(POD_NAME)", "trunkline-0"))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        return {**inherited, **values}

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start it; at the end it is told to stop, and has to end well."""
        command = [sys.executable, "-m", "proxy", *[self.here(word) for word in self.container["args"]]]
        with self._log.open("wb") as log:
            process = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
            process.terminate()
            assert process.wait(LIMIT_S) == 0, self._log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def succeeds(self, kind: str) -> bool:
        """Whether a probe does now, run as the kubelet runs it."""
        probe: dict[str, Any] = self.container[kind]
        if "exec" in probe:
            program, *rest = [self.here(word) for word in probe["exec"]["command"]]
            assert program == "trunkline"
            command = [sys.executable, "-m", "proxy", *rest]
            return subprocess.run(command, capture_output=True, check=False, timeout=LIMIT_S).returncode == 0
        try:
            self.get(probe["httpGet"]["path"])
        except urllib.error.URLError:
            return False
        return True

    def get(self, path: str) -> str:
        """What the port `admin` serves."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[8080]}{path}", timeout=LIMIT_S) as answer:
            text: str = answer.read().decode()
            return text

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.05)

    def logged(self, event: str) -> bool:
        """Whether the log has an event."""
        return f'"{event}"' in self._log.read_text()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "workers"), [("overlays/single-node", 1), ("overlays/several-nodes", 1), ("overlays/several-nodes", 2)]
)
def test_probes_succeed_and_files_that_change_are_taken_up(
    name: str, workers: int, build: Callable[[str], Objects], tmp_path: Path
) -> None:
    pod = Pod(build(name), tmp_path, workers)
    with pod.running():
        pod.wait_until(lambda: pod.succeeds("startupProbe"))
        assert pod.succeeds("livenessProbe")
        assert pod.succeeds("readinessProbe")
        changed = {file: text.replace("id: shipped", "id: changed") for file, text in pod.rules().items()}
        pod.replace_rules(changed)
        pod.wait_until(lambda: pod.logged("rules-reloaded"))
        pod.replace_rules({**changed, "site.yaml": "rules: ["})
        pod.wait_until(lambda: pod.logged("rules-reload-failed"))
        certificate = pod.new_certificate()
        pod.wait_until(lambda: pod.shown_certificate() == certificate)
        assert (tmp_path / "state" / "calls.db").exists()
        scaler = of_kind(build(name), "HorizontalPodAutoscaler")
        if scaler:
            (metric,) = scaler["trunkline"]["spec"]["metrics"]
            assert f"\n{metric['pods']['metric']['name']} 0.0\n" in pod.get("/metrics")
