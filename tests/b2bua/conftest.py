"""What every test of the B2BUA gets: benches that are checked at the end of the test."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.bench import Bench
from tests.support.law3 import check_records

BenchMaker = Callable[..., Bench]


@pytest.fixture
def make_bench() -> Iterator[BenchMaker]:
    """A maker of benches. After the test, whatever became of it, all messages that crossed must be explained by their
    changes, and once every call is hung up and time has passed nothing may be left in any table, or be kept outside."""
    made: list[Bench] = []

    def make(**options: object) -> Bench:
        options.setdefault("checkpoints", True)
        bench = Bench(**options)  # type: ignore[arg-type]
        made.append(bench)
        return bench

    yield make
    for bench in made:
        finish(bench)


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """A bench with the settings that are usual."""
    return make_bench()


def finish(bench: Bench) -> None:
    """Check what must hold after any test."""
    bench.release()
    bench.stack.hang_up_all("End of test", bench.now)
    bench.perform()
    bench.advance(400)
    left = {name: size for name, size in bench.stack.tables(bench.now).items() if size}
    assert not left
    assert bench.checkpoints == {}
    check_records(bench.events, [message.serialize() for _, _, message in bench.wire])
