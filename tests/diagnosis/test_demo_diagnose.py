"""The demo that hides causes of failure and looks whether the report names them: the real stack, rules and store."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.commands.demo_diagnose import DemoOptions, judge, run_demo_diagnose
from proxy.diagnosis.differences import Finding
from proxy.diagnosis.report import Report
from proxy.rehearsal import START, WALL_OFFSET, Causes
from proxy.storage.queries import StoreReader

ZERO = START + WALL_OFFSET
HIDDEN = Causes("Diversion", "203.0.113.22", (4000.0, 6000.0))


def finding(kind: str, name: str, since: float | None = None, until: float | None = None) -> Finding:
    """One that the report might have."""
    ends = [None if end is None else ZERO + end for end in (since, until)]
    spans = [None if end is None else (end, end) for end in ends]
    return Finding(kind, name, "words", 9, 9, 1, 90, 1e-9, 90.0, (), (), (), (), *ends, *spans)  # type: ignore[arg-type]


def report(*findings: Finding) -> Report:
    return Report(ZERO, ZERO + 9000, 99, 90, 120, 30, 20, (), (), findings, ())


@pytest.mark.parametrize(
    ("found", "hits"),
    [
        (finding("header", "header:diversion"), (True, False, False)),
        (finding("address", "tls:203.0.113.22:5061"), (False, True, False)),
        (finding("time", "", 3900.0, 6200.0), (False, False, True)),
        (finding("header", "header:privacy"), None),
        (finding("address", "tls:203.0.113.21:5061"), None),
        (finding("time", "", 3900.0, 6300.0), None),
        (finding("time", "", 3900.0), None),
        (finding("codec", "codec:opus"), None),
    ],
)
def test_a_finding_is_one_of_the_causes_or_false(found: Finding, hits: tuple[bool, bool, bool] | None) -> None:
    judgement = judge(report(found), HIDDEN)
    assert (judgement.header, judgement.address, judgement.window) == (hits or (False, False, False))
    assert len(judgement.false) == (hits is None)
    assert judge(report(found), Causes()).false == (found.sentence,)


def test_a_window_may_end_where_the_report_says_that_it_may() -> None:
    found = replace(
        finding("time", "", 3500.0, 6300.0), began=(ZERO + 3400, ZERO + 4100), ended=(ZERO + 5900, ZERO + 6400)
    )
    assert judge(report(found), HIDDEN).window
    far = replace(found, since=ZERO + 500, began=(ZERO + 400, ZERO + 4100))
    assert not judge(report(far), HIDDEN).window, "less than half of it is common to both"


def test_an_address_that_was_broken_for_some_time_is_named_with_that_time() -> None:
    hidden = replace(HIDDEN, broken_in=(1000.0, 3000.0))
    name = "tls:203.0.113.22:5061"
    assert judge(report(finding("address", name, 1010.0, 2990.0)), hidden).address
    assert not judge(report(finding("address", name)), hidden).address


def test_what_is_hidden_follows_from_seed_and_options() -> None:
    options = DemoOptions(header="X-Mine", refused=0.3, broken=0.5, broken_for=0.2, window=0.05, slow=0.4)
    causes = options.causes(5, 14_400.0)
    assert causes == options.causes(5, 14_400.0) != options.causes(6, 14_400.0)
    assert (causes.header, causes.refused, causes.broken, causes.slow) == ("X-Mine", 0.3, 0.5, 0.4)
    assert causes.window is not None
    assert causes.window[1] - causes.window[0] == pytest.approx(720.0)
    assert causes.broken_in is not None
    assert causes.broken_in[1] - causes.broken_in[0] == pytest.approx(2880.0)
    assert DemoOptions().causes(5, 14_400.0) == Causes.draw(random.Random(5), 14_400.0)


def test_a_small_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_demo_diagnose(DemoOptions(calls=200, seed=7, out=tmp_path, broken_for=0.6))
    text = capsys.readouterr().out
    assert "of INVITEs with `Diversion` refused; 203.0.113.21 broken from 1" in text
    assert "2. INVITEs with `Diversion` failed " in text or "1. INVITEs with `Diversion` failed " in text
    assert code == (0 if "3 of 3 hidden causes were named; 0 false alarms." in text else 1)
    with StoreReader(tmp_path / "hidden-causes.db") as reader:
        assert reader.status().calls == 200
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
