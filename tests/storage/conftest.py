"""A store that a rehearsal has filled, made once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from proxy.audit.records import Event
from proxy.rehearsal import WALL_OFFSET, Causes, Rehearsal, RehearsalOptions
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.storage.queries import StoreReader
from proxy.storage.sink import StoreSettings, StoreSink

CALLS = 40


class Tape:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


@pytest.fixture(scope="session")
def rules() -> Mapping[str, RuleSet]:
    return load_directory_or_files([shipped_rules()])


@pytest.fixture(scope="session")
def tape(rules: Mapping[str, RuleSet]) -> Tape:
    """The events of some calls: many fail at first, some for good."""
    tape = Tape()
    causes = Causes("Diversion", "203.0.113.22", (100.0, 160.0))
    options = RehearsalOptions(calls=CALLS, span_s=280.0, seed=5, causes=causes)
    Rehearsal(options, rules, "twilio-openai", [tape]).run()
    return tape


@pytest.fixture(scope="session")
def store(tape: Tape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with these calls, masked as by default."""
    path = tmp_path_factory.mktemp("store") / "calls.db"
    sink = StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET)
    for event in tape.events:
        sink.emit(event)
    assert sink.flush()
    sink.close()
    assert sink.state().dropped == 0
    return path


@pytest.fixture
def reader(store: Path) -> Iterator[StoreReader]:
    with StoreReader(store) as reader:
        yield reader
