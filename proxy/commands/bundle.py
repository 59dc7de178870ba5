"""`trunkline bundle`: evidence for a support desk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxy.commands.calls import find_call, ladder_text, write_out
from proxy.storage.queries import StoreReader
from proxy.storage.texts import bundle

__all__ = ["write_bundle"]


def write_bundle(reader: StoreReader, names: Sequence[str], out: Path | None) -> None:
    """Write the evidence of some calls. Raises CallsError."""
    parts: list[str] = []
    for name in names:
        call = find_call(reader, name)
        events = reader.timeline(call.key)
        parts.append(bundle(call, reader.attempts(call.key), events, ladder_text(events)))
    write_out("\n".join(parts), out)
