"""Grafana dashboard and alert rules name metrics and labels that exist."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from proxy.admin.counts import Counts
from proxy.admin.metrics import render
from proxy.audit.records import Event
from tests.admin.conftest import Process
from tests.support.bench import ANSWER, Bench

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def expressions() -> list[str]:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana" / "trunkline.json").read_text())
    alerts: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return shown + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def series() -> dict[str, set[str]]:
    """The names of all series, with their labels, once everything has happened."""
    bench, counts = Bench(), Counts()
    bench.invite()
    bench.respond(400, "Bad Request")
    bench.advance(0.5)
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("BYE", cseq=2)
    for event in bench.events:
        counts.emit(event)
    for kind in ("refused", "dropped", "hop-failed", "webhook"):
        counts.emit(Event(kind, 1.0, "", "", 0, {"why": "x", "method": "INVITE", "status": 400, "target": "t"}))
    counts.rules.bump("set/rule")
    found: dict[str, set[str]] = {}
    for line in render(Process(counts)).decode().splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


def test_every_metric_and_label_exists() -> None:
    known = series()
    assert len(expressions()) > 20
    for expression in expressions():
        assert expression.count("(") == expression.count(")")
        names = re.findall(r"trunkline_\w+", expression)
        assert [name for name in names if name not in known] == []
        allowed = {"instance", "job", "le", *[label for name in names for label in known[name]]}
        used = re.findall(r"(\w+)(?:=~|!=|=)\"", expression)
        used += [name for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(", ")]
        assert set(used) <= allowed, expression
