"""The tutorial, docs/tutorial.md: its commands, run one after the other, print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_tutorial(tmp_path: Path) -> None:
    """All but the installation, which the test environment is."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    (tmp_path / "rules").symlink_to(ROOT / "rules")
    printed = ""
    checked = 0
    for language, block in _BLOCK.findall(TUTORIAL):
        if language == "sh":
            commands = "\n".join([line for line in block.split("\n") if not line.startswith(("make ", "export "))])
            result = subprocess.run(
                ["bash", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
            )
            printed = result.stdout + result.stderr
            assert "Traceback" not in printed
        else:
            lines = [line.rstrip() for line in printed.splitlines()]
            missing = [line for line in block.strip("\n").split("\n") if line.rstrip() not in lines]
            assert not missing, printed
            checked += 1
    assert checked == 5


def test_readme_links_the_tutorial() -> None:
    assert "docs/tutorial.md" in (ROOT / "README.md").read_text()
