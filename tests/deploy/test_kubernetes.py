"""The manifests: built as `kubectl apply -k` does, right by the API's own schemas, and at one with the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from proxy.rulefiles import load_file
from proxy.settings import NAMED_NETWORKS, Settings
from tests.deploy.manifests import BUILDS, ROOT, Objects, container, of_kind, pod, secrets

VERSIONS = ("1.31", "1.37")
OWN_KINDS = frozenset(("ServiceMonitor",))
CALL_KB, PROCESS_MB = 32, 128
"""Memory to plan with, by docs/capacity.md: of a call in progress, and of a process without any."""


def settings_of(objects: Objects, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the container would read, from its file and its environment."""
    (name,) = [name for name in of_kind(objects, "ConfigMap") if name.startswith("trunkline-settings")]
    path = directory / "trunkline.yaml"
    path.write_text(of_kind(objects, "ConfigMap")[name]["data"]["trunkline.yaml"])
    for item in container(objects)["env"]:
        value = item.get("value", "a-value-of-a-secret")
        monkeypatch.setenv(item["name"], value.replace("$(POD_NAME)", "trunkline-0"))
    monkeypatch.delenv("POD_NAME")
    return Settings(config=path)


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_keep_to_the_schemas_of_the_api(name: str, version: str, build: Callable[[str], Objects]) -> None:
    for item in build(name):
        if item["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(item, version, strict=True)


def test_the_example_of_secrets_keeps_to_the_schemas_and_has_what_is_asked_for(
    build: Callable[[str], Objects],
) -> None:
    for secret in secrets():
        kubernetes_validate.validate(secret, VERSIONS[-1], strict=True)
    keys = {(secret["metadata"]["name"], key) for secret in secrets() for key in secret["stringData"]}
    for name in BUILDS:
        for item in container(build(name))["env"]:
            if reference := item.get("valueFrom", {}).get("secretKeyRef"):
                assert (reference["name"], reference["key"]) in keys


@pytest.mark.parametrize("name", BUILDS)
def test_all_that_is_referred_to_is_there(name: str, build: Callable[[str], Objects]) -> None:
    objects = build(name)
    template = of_kind(objects, "StatefulSet")["trunkline"]["spec"]["template"]
    labels = {**template["metadata"]["labels"], "statefulset.kubernetes.io/pod-name": "any"}
    ports = {(port["name"], port["protocol"], port["containerPort"]) for port in container(objects)["ports"]}
    assert {("sip-udp", "UDP", 5060), ("sip-tcp", "TCP", 5060), ("sip-tls", "TCP", 5061)} <= ports
    named = {(port, protocol) for port, protocol, _ in ports}
    for service in of_kind(objects, "Service").values():
        assert set(service["spec"]["selector"]) <= set(labels)
        assert {"sip-udp", "sip-tcp", "sip-tls"} <= {port["name"] for port in service["spec"]["ports"]}
        for port in service["spec"]["ports"]:
            assert (port["targetPort"], port["protocol"]) in named
    for item in (*of_kind(objects, "NetworkPolicy").values(), *of_kind(objects, "PodDisruptionBudget").values()):
        selector = item["spec"].get("podSelector") or item["spec"]["selector"]
        assert selector["matchLabels"].items() <= labels.items()
    for policy in of_kind(objects, "NetworkPolicy").values():
        for rule in policy["spec"]["ingress"]:
            assert {(port["port"], port["protocol"]) for port in rule["ports"]} <= named
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    claims = {
        claim["metadata"]["name"]
        for claim in of_kind(objects, "StatefulSet")["trunkline"]["spec"]["volumeClaimTemplates"]
    }
    assert {mount["name"] for mount in container(objects)["volumeMounts"]} == {*volumes, *claims}
    maps = {volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume}
    assert maps == set(of_kind(objects, "ConfigMap"))


@pytest.mark.parametrize("name", BUILDS)
def test_settings_and_rules_are_good(
    name: str, build: Callable[[str], Objects], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = build(name)
    settings = settings_of(objects, tmp_path, monkeypatch)
    mounts = {mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert settings.tls.certificate is not None
    assert settings.tls.key is not None
    assert settings.store.path is not None
    used = [settings.tls.certificate.parent, settings.tls.key.parent, settings.store.path.parent]
    assert {str(path) for path in (*used, *settings.rules)} <= mounts
    assert {(item.transport, item.port) for item in settings.listeners()} == {
        ("udp", 5060),
        ("tcp", 5060),
        ("tls", 5061),
    }
    grace = pod(objects)["terminationGracePeriodSeconds"]
    assert settings.drain_s < grace < settings.drain_s + 120
    assert settings.workers == 1, "not one for each core of the node"
    for file, text in of_kind(objects, "ConfigMap")["trunkline-rules"]["data"].items():
        (tmp_path / file).write_text(text)
        load_file(tmp_path / file)


@pytest.mark.parametrize("name", BUILDS)
def test_the_container_has_no_rights(name: str, build: Callable[[str], Objects]) -> None:
    objects = build(name)
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    security = pod(objects)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in (ROOT / "Dockerfile").read_text()
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container(objects))
    assert pod(objects)["automountServiceAccountToken"] is False


def test_twilio_comes_in_and_nobody_else(build: Callable[[str], Objects]) -> None:
    policy = of_kind(build("base"), "NetworkPolicy")["trunkline"]["spec"]
    (ingress,) = policy["ingress"]
    assert {item["ipBlock"]["cidr"] for item in ingress["from"]} == set(NAMED_NETWORKS["twilio"])
    assert {item["ipBlock"]["cidr"] for item in policy["egress"][0]["to"]} == set(NAMED_NETWORKS["twilio"])


@pytest.mark.parametrize("name", BUILDS)
def test_memory_is_enough_for_all_calls_that_may_come(
    name: str, build: Callable[[str], Objects], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(build(name), tmp_path, monkeypatch)
    resources = container(build(name))["resources"]
    mib = {"Mi": 1, "Gi": 1024}
    requested, limit = [
        int(resources[kind]["memory"][:-2]) * mib[resources[kind]["memory"][-2:]] for kind in ("requests", "limits")
    ]
    most = PROCESS_MB + settings.limits.max_calls * CALL_KB // 1000
    assert most <= requested
    assert most * 1.5 < limit


def test_what_is_left_of_several_instances_can_take_the_calls_of_one_that_goes(
    build: Callable[[str], Objects], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = build("overlays/several-nodes")
    settings = settings_of(objects, tmp_path, monkeypatch)
    scaler = of_kind(objects, "HorizontalPodAutoscaler")["trunkline"]["spec"]
    (metric,) = scaler["metrics"]
    fewest, calls = scaler["minReplicas"], int(metric["pods"]["target"]["averageValue"])
    assert calls * fewest / (fewest - 1) < settings.limits.max_calls
    (rule,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    assert rule["seriesQuery"].partition("{")[0] == rule["name"]["as"]
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}


def test_targets_can_be_reached(
    build: Callable[[str], Objects], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(build("base"), tmp_path, monkeypatch)
    policy = of_kind(build("base"), "NetworkPolicy")["trunkline"]["spec"]
    anywhere = {
        (port["protocol"], port["port"]) for rule in policy["egress"] if "to" not in rule for port in rule["ports"]
    }
    assert anywhere == {("TCP", 5061), ("UDP", 53), ("TCP", 53)}
    for target in settings.stack_targets().values():
        assert target.uri.param("transport") == "tls"
        assert target.uri.port in (None, 5061)


def test_each_of_several_instances_has_a_way_in_of_its_own(build: Callable[[str], Objects]) -> None:
    objects = build("overlays/several-nodes")
    scaler = of_kind(objects, "HorizontalPodAutoscaler")["trunkline"]["spec"]
    services = of_kind(objects, "Service")
    ways = {name: item["spec"] for name, item in services.items() if item["spec"].get("type") == "LoadBalancer"}
    assert set(ways) == {f"trunkline-{number}" for number in range(scaler["maxReplicas"])}
    for name, spec in ways.items():
        assert spec["selector"]["statefulset.kubernetes.io/pod-name"] == name
        assert spec["externalTrafficPolicy"] == "Local"
        assert spec["publishNotReadyAddresses"] is True
    assert "replicas" not in of_kind(objects, "StatefulSet")["trunkline"]["spec"], "the autoscaler says how many"
    metric = scaler["metrics"][0]["pods"]["metric"]["name"]
    assert f'"{metric.removeprefix("trunkline_")}"' in (ROOT / "proxy" / "admin" / "metrics.py").read_text()
    assert {item["topologyKey"] for item in pod(objects)["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_metrics_are_found_and_probes_use_them(build: Callable[[str], Objects]) -> None:
    objects = build("overlays/several-nodes")
    monitor = of_kind(objects, "ServiceMonitor")["trunkline"]["spec"]
    service = of_kind(objects, "Service")["trunkline"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    (port,) = [port for port in container(objects)["ports"] if port["name"] == "admin"]
    listen = next(item["value"] for item in container(objects)["env"] if item["name"] == "TRUNKLINE_ADMIN__LISTEN")
    assert listen == f"0.0.0.0:{port['containerPort']}"
    app = (ROOT / "proxy" / "admin" / "app.py").read_text()
    for probe in ("livenessProbe", "readinessProbe"):
        assert "exec" not in container(objects)[probe]
        assert f'@app.get("{container(objects)[probe]["httpGet"]["path"]}")' in app


def test_a_single_node_lends_its_network(build: Callable[[str], Objects]) -> None:
    objects = build("overlays/single-node")
    assert pod(objects)["hostNetwork"] is True
    assert pod(objects)["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert not of_kind(objects, "NetworkPolicy"), "it would have no effect there"
    assert set(of_kind(objects, "Service")) == {"trunkline"}
