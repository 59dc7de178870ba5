"""The commands that read the store, at a terminal of 80 columns; and what they say of mistakes."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import app
from proxy.storage.queries import CallFilter, StoreReader
from proxy.storage.schema import SCHEMA_VERSION, open_writer
from tests.storage.conftest import CALLS

NARROW = {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}


def run(*words: str, store: Path, columns: int = 0) -> Result:
    """Run a command; with columns as on a terminal of that width."""
    environment = {**NARROW, "COLUMNS": str(columns)} if columns else {"NO_COLOR": "1"}
    return CliRunner().invoke(app, [*words, "--store", str(store)], env=environment)


def lines(result: Result) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()]


@pytest.fixture(scope="module")
def failed(store: Path) -> str:
    """The id of a call that failed after several attempts."""
    with StoreReader(store) as reader:
        return max(reader.calls(CallFilter(outcome="failed"), 1000), key=lambda call: call.attempts).id


@pytest.mark.parametrize(
    "words",
    ["calls list", "calls show {}", "calls ladder {}", "diagnose --since 2020-01-01", "experiment report"],
)
def test_output_fits_a_terminal(words: str, store: Path, failed: str) -> None:
    result = run(*words.format(failed).split(), store=store, columns=80)
    assert result.exit_code == 0
    assert max(map(len, lines(result))) <= 80


def test_a_list_has_less_where_there_is_less_room(store: Path) -> None:
    narrow, wide = (lines(run("calls", "list", store=store, columns=columns)) for columns in (80, 140))
    assert narrow[0].split() == ["time", "(UTC)", "call", "from", "outcome", "tries", "set-up", "cause"]
    assert {"to", "target", "talk"} <= set(wide[0].split())
    assert len(narrow) == len(wide) == CALLS + 1
    piped = run("calls", "list", store=store).stdout
    assert lines(run("calls", "list", store=store))[0] == wide[0]
    assert "\x1b" not in piped


def test_a_list_says_that_there_are_more(store: Path) -> None:
    assert lines(run("calls", "list", "-n", "3", store=store))[-1] == "The newest 3; --limit shows more."
    assert "--limit" not in run("calls", "list", "-n", str(CALLS), store=store).stdout


def test_what_show_says(store: Path, failed: str) -> None:
    text = run("calls", "show", failed, store=store).stdout
    with StoreReader(store) as reader:
        attempts = reader.attempts(reader.find(failed)[0].key)
    for attempt in attempts:
        assert attempt.evidence is not None
        assert attempt.evidence in text
    assert f"attempt {attempts[-1].number}  " in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("calls list --cause nonsense", "nonsense is no cause (allowed: ours, carrier, "),
        ("calls list --since yesterday", "yesterday is no time: give 30m, 24h, 7d, "),
        ("calls show nobody", "there is no call nobody"),
        ("calls diff {} --attempt 99", "no INVITE of this attempt went out"),
        ("calls export {} -o /nowhere/x.pcap", "/nowhere/x.pcap: no such file or directory"),
        ("bundle nobody", "there is no call nobody"),
        ("diagnose --until soon", "soon is no time"),
        ("experiment report --since x", "x is no time"),
    ],
)
def test_mistakes_are_one_line(words: str, says: str, store: Path, failed: str) -> None:
    result = run(*words.format(failed).split(), store=store)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"trunkline: {says}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["calls list", "calls show x", "diagnose", "experiment report", "bundle x"])
def test_no_store_an_empty_one_and_those_of_others(words: str, tmp_path: Path) -> None:
    missing, empty, other, text = (tmp_path / name for name in ("missing.db", "empty.db", "other.db", "text.db"))
    open_writer(empty).close()
    open_writer(other).close()
    database = sqlite3.connect(other)
    database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    database.commit()
    database.close()
    text.write_text("no database at all\n" * 100)
    for path, says in (
        (missing, "there is no call store at "),
        (other, f"written by a newer version of Trunkline (store version {SCHEMA_VERSION + 1}"),
        (text, "can't be read: file is"),
    ):
        result = run(*words.split(), store=path)
        assert result.exit_code == 2
        assert says in result.stderr
        assert result.stderr.count("\n") == 1
    result = run(*words.split(), store=empty)
    assert result.exit_code == (2 if "x" in words.split() else 0)
    assert (result.stdout + result.stderr).count("\n") <= 2


def test_diagnosis_of_another_time_says_where_the_calls_are(store: Path) -> None:
    text = " ".join(lines(run("diagnose", "--since", "2020-01-01", "--until", "2020-01-02", store=store)))
    assert "There are no calls in this time." in text
    assert "The oldest call is of 2026-11-23T12:00 UTC" in text
