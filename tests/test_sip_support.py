"""`docs/sip-support.md` names tests that there are, and every row names one."""

import ast
import re
from pathlib import Path

import pytest

from tests.e2e.test_sipp_in_dialog import WORLDS
from tests.sipp.session_timers import SESSION_TIMER_CASES

ROOT = Path(__file__).parent
PAGE = (ROOT.parent / "docs" / "sip-support.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)))
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| method |", "| RFC |", "| threat |", "| in a call |"))
]
LIFE = PAGE.partition("| in a call |")[2].partition("\n\n")[0].splitlines()[2:]
CASES = {
    name.removesuffix("-by-caller").removesuffix("-by-callee")
    for cases in (*[world.cases for world in WORLDS.values()], SESSION_TIMER_CASES)
    for name in cases
}


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_named_tests_exist(file: str) -> None:
    tree = ast.parse((ROOT / file).read_bytes())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert [name for where, name in NAMED if where == file and name not in defined] == []


def test_what_happens_in_a_call_has_a_core_test_and_a_scenario_of_sipp() -> None:
    named: set[str] = set()
    for row in LIFE:
        _, _, tests, scenarios, _ = row.split("|")
        assert "::test_" in tests
        found = re.findall(r"`([\w-]+)`", scenarios)
        assert found
        named.update(found)
    assert named == CASES


def test_every_row_names_its_proof() -> None:
    assert len(ROWS) > 40
    assert [row for row in ROWS if "::test_" not in row] == []
