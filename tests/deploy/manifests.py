"""What the tests of the manifests share: how they are built, and the ways into what comes out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

__all__ = ["BUILDS", "KUBERNETES", "ROOT", "Objects", "build_objects", "container", "of_kind", "pod", "secrets"]

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "k8s"
BUILDS = ("base", "overlays/single-node", "overlays/several-nodes")
Objects = list[dict[str, Any]]


def build_objects(name: str) -> Objects:
    """Build a directory as `kubectl apply -k` does."""
    command = [str(Path(sys.executable).with_name("kubectl")), "kustomize", str(KUBERNETES / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    """The objects of one kind by name."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def pod(objects: Objects) -> dict[str, Any]:
    """The pod's specification."""
    spec: dict[str, Any] = of_kind(objects, "StatefulSet")["trunkline"]["spec"]["template"]["spec"]
    return spec


def container(objects: Objects) -> dict[str, Any]:
    """The one container."""
    (found,) = pod(objects)["containers"]
    assert isinstance(found, dict)
    return found


def secrets() -> Objects:
    """The example of Secrets."""
    return list(yaml.safe_load_all((KUBERNETES / "secrets.example.yaml").read_text()))
