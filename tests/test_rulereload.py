"""Rule files that are changed while the process runs: good ones are used, bad ones are told and change nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.commands.prepare import Current, prepare
from proxy.rewrite.engine import RuleSet
from proxy.rulereload import RuleReload, RuleSource

RULES = "version: 1\nname: mine\nrules:\n  - {{id: r, why: w, do: [{{{0}}}]}}\n"


class Told:
    """What a reload came to."""

    def __init__(self) -> None:
        self.used: list[str] = []
        self.problems: list[str] = []
        self.changed = asyncio.Event()

    def use(self, rules: Mapping[str, RuleSet], default: str) -> None:
        self.used.append(f"{default} {rules[default].version}")
        self.changed.set()

    def fail(self, problems: Sequence[str]) -> None:
        self.problems += problems
        self.changed.set()

    async def next(self) -> None:
        await asyncio.wait_for(self.changed.wait(), 10)
        self.changed.clear()


def write(path: Path, text: str) -> None:
    """Replace a file at once, as careful editors do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


async def test_reload(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    write(folder / "mine.yaml", RULES.format("remove: X-A"))
    flags = {"targets": {"main": "sip:127.0.0.1:5080"}, "listen": ["udp:127.0.0.1:0"], "rules": [str(folder)]}
    prepared = prepare(flags)
    assert prepared.default_rules == "mine"
    current = Current(prepared)
    told = Told()
    reload = RuleReload(RuleSource(current.rule_paths, current.load_rules, 0.02), told.use, told.fail)
    reload.start()
    try:
        write(folder / "mine.yaml", RULES.format("remove: X-B"))
        await told.next()
        first = told.used[-1]
        assert first.startswith("mine ")
        assert first != f"mine {prepared.rules['mine'].version}"

        write(folder / "mine.yaml", RULES.format("remov: X-C"))
        await told.next()
        (problem,) = told.problems
        assert f'{folder / "mine.yaml"}:4:27: "remov" is not an action' in problem
        assert told.used[-1] == first

        write(folder / "mine.yaml", RULES.format("route: moon"))
        await told.next()
        assert "is not a target: moon (known: main)" in told.problems[-1]

        write(folder / "mine.yaml", RULES.format("remove: X-D"))
        await told.next()
        assert told.used[-1] != first

        count = len(told.used)
        write(folder / "more.yaml", RULES.replace("mine", "more").format("remove: X-E"))
        await told.next()
        assert len(told.used) == count + 1
    finally:
        await reload.stop()


async def test_reload_by_hand_and_during_a_reload(tmp_path: Path) -> None:
    told = Told()
    sets: list[int] = []

    def load() -> tuple[Mapping[str, RuleSet], str]:
        sets.append(1)
        return {"x": RuleSet("x", "x", str(len(sets)), ())}, "x"

    reload = RuleReload(RuleSource(list, load, 0), told.use, told.fail)
    reload.reload()
    await asyncio.sleep(0)  # the reading has begun
    for _ in range(5):
        reload.reload()
    await told.next()
    while len(told.used) < 2:
        await told.next()
    assert told.used == ["x 1", "x 2"]
    await reload.stop()


async def test_a_fault_while_reading_is_told() -> None:
    told = Told()

    def load() -> tuple[Mapping[str, RuleSet], str]:
        raise OSError("disk on fire")

    reload = RuleReload(RuleSource(list, load, 0), told.use, told.fail)
    reload.reload()
    await told.next()
    assert "disk on fire" in told.problems[0]
    await reload.stop()
