"""`docs/sip-support.md` names tests that there are, and every row names one."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
PAGE = (ROOT.parent / "docs" / "sip-support.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)))
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| method |", "| RFC |", "| threat |"))
]


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_named_tests_exist(file: str) -> None:
    tree = ast.parse((ROOT / file).read_bytes())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert [name for where, name in NAMED if where == file and name not in defined] == []


def test_every_row_names_its_proof() -> None:
    assert len(ROWS) > 40
    assert [row for row in ROWS if "::test_" not in row] == []
