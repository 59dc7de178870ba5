"""A hostile neighbour harms no call."""

from pathlib import Path

import pytest

from tests.soak.attack import DATAGRAMS, SLOW, attack


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_calls_succeed_while_strangers_do_their_worst(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = await attack(tmp_path)
    with capsys.disabled():
        print("\n" + result.text())  # noqa: T201
    for report in (result.quiet, result.under_attack):
        assert (report.answered, report.failed) == (report.calls, 0)
        assert not report.unexpected
    # The kernel may lose some of a flood; what came was turned away, and not by reading it all.
    assert result.end.counters["dropped"] > DATAGRAMS / 2
    assert result.end.counters["limit_unknown_per_s"] > 0.9 * result.end.counters["dropped"]
    assert result.closed_slow == SLOW
    assert result.end.counters["connections_refused"] >= SLOW
