"""The documentation and the code say the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RECORDERS = frozenset(("record", "_note"))
LOGGERS = frozenset(("debug", "info", "warning", "error", "exception"))


def kinds() -> Iterator[str]:
    """Every kind of event that the code records or logs."""
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        if "sim" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if node.func.attr in RECORDERS or (node.func.attr in LOGGERS and name.strip("_") == "log"):
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_every_event_is_documented() -> None:
    found = set(kinds())
    assert {"call-end", "message", "target-up", "target-down", "started", "tls-handshake-failed"} - {"message"} <= found
    text = (ROOT / "docs" / "events.md").read_text()
    assert sorted(kind for kind in found if f"`{kind}`" not in text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [link.partition("#") for link in links if not link.startswith(("http://", "https://"))]
    missing = [link for link, _, _ in local if link and not (page.parent / link).exists()]
    assert missing == []
