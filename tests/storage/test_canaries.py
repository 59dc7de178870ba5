"""No secret and no whole number in the store or in anything that is made of it, with default settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.audit.redact import Redaction
from proxy.cli import app
from proxy.rehearsal import WALL_OFFSET
from proxy.storage.chunks import unpack
from proxy.storage.queries import StoreReader
from proxy.storage.schema import open_reader
from proxy.storage.sink import StoreSettings, StoreSink
from tests.support.canaries import leaks, planted_events


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with calls full of canaries. Its files were searched while it was open, too."""
    path = tmp_path_factory.mktemp("planted") / "calls.db"
    sink = StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET)
    for event in planted_events():
        sink.emit(event)
    assert sink.flush()
    assert path.with_name("calls.db-wal").stat().st_size > 0
    search_files(path.parent)
    sink.close()
    return path


def search_files(directory: Path) -> None:
    """No canary in the bytes of any file of a store, write-ahead log and shared memory among them."""
    for file in directory.iterdir():
        assert leaks(file.read_bytes().decode("latin-1")) == [], file


def contents(path: Path) -> str:
    """Everything in the store, packed texts unpacked."""
    database = open_reader(path)
    parts: list[str] = []
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in database.execute(f"SELECT * FROM {table}"):  # noqa: S608
            parts += [str(unpack(value)) if isinstance(value, bytes) else str(value) for value in row]
    database.close()
    return "\n".join(parts)


def test_nothing_in_the_store(planted: Path) -> None:
    text = contents(planted)
    assert "****" in text
    assert "+1555*****02" in text
    assert leaks(text) == []
    search_files(planted.parent)


@pytest.mark.parametrize(
    "command",
    [
        ["calls", "list"],
        ["calls", "list", "--json"],
        ["calls", "show", "{call}"],
        ["calls", "show", "{call}", "--json"],
        ["calls", "ladder", "{call}", "--changes"],
        ["calls", "diff", "{call}"],
        ["calls", "export", "{call}", "-f", "pcap"],
        ["calls", "export", "{call}", "-f", "sip"],
        ["calls", "export", "{call}", "-f", "mermaid"],
        ["calls", "export", "{call}", "-f", "json"],
        ["bundle", "{call}"],
        ["diagnose", "--since", "2020-01-01"],
        ["diagnose", "--since", "2020-01-01", "--json"],
        ["experiment", "report"],
    ],
    ids=" ".join,
)
def test_nothing_in_what_commands_write(planted: Path, command: list[str]) -> None:
    with StoreReader(planted) as reader:
        for call in reader.calls():
            words = [word.replace("{call}", call.id) for word in command]
            result = CliRunner().invoke(app, [*words, "--store", str(planted)])
            assert result.exit_code == 0, result.output
            assert result.stdout_bytes
            assert leaks(result.stdout_bytes.decode("utf-8", "replace")) == []


def test_masking_can_be_switched_off(tmp_path: Path) -> None:
    """So that the search of the tests above is known to find what there is."""
    path = tmp_path / "calls.db"
    sink = StoreSink(StoreSettings(path, redaction=Redaction(False, False)), wall_offset=WALL_OFFSET)
    for event in planted_events():
        sink.emit(event)
    assert sink.flush()
    sink.close()
    assert len(set(leaks(contents(path)))) > 60
    with StoreReader(path) as reader:
        for call in reader.calls():
            result = CliRunner().invoke(app, ["bundle", call.id, "--store", str(path)])
            assert "## Messages" in result.stdout
            assert leaks(result.stdout) == [], "a bundle is masked whatever the store holds"
