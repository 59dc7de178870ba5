"""Certificates of the simulators' own: without the package that makes them there is one line that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app


@pytest.mark.parametrize("command", ["sim openai --listen tls:127.0.0.1:0 --answer-after 1", "demo --out {}"])
def test_a_missing_package_is_named(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    result = CliRunner().invoke(app, command.format(tmp_path).split())
    assert result.exit_code in (1, 2)
    assert "pip install 'trunkline[sim]'" in " ".join(result.output.split())
    assert "Traceback" not in result.output
