"""The attempts as columns: every feature that is compared, and which attempts have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.diagnosis.effects import MIN_FAILED
from proxy.diagnosis.facts import AttemptFacts
from proxy.diagnosis.features import describe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = ["Column", "columns_of", "without"]

_NEW_CONNECTION_S: Final = 1.0


class Column(NamedTuple):
    """A feature: its kind and name, words that follow "INVITEs", and which attempts have it."""

    kind: str
    name: str
    words: str
    mask: Mask


def columns_of(facts: Sequence[AttemptFacts], whole: Mask) -> Iterator[Column]:
    """Every feature. `whole` says which facts are attempts, and not addresses that failed within one."""
    import numpy as np

    shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    numbers = np.array([shapes.setdefault((f.shape, f.sent), len(shapes)) for f in facts], dtype=np.int64)
    names = sorted({name for shape, _ in shapes for name in shape})
    for name in names:
        has = np.array([name in shape for shape, _ in shapes], dtype=np.bool_)
        yield Column(name.partition(":")[0], name, describe(name), has[numbers] & whole)
    for name in sorted({name for _, sent in shapes for name in sent} - set(names)):
        has = np.array([name in sent for _, sent in shapes], dtype=np.bool_)
        yield Column(name.partition(":")[0], name, f"{describe(name)} (as sent on)", has[numbers] & whole)
    yield from _categories(facts)
    yield from _numbers(facts, whole)


def _categories(facts: Sequence[AttemptFacts]) -> Iterator[Column]:
    import numpy as np

    kinds: tuple[tuple[str, Callable[[AttemptFacts], Iterable[str]], str], ...] = (
        ("address", lambda fact: [fact.address] if fact.address else (), "to the address {}"),
        ("target", lambda fact: [fact.target] if fact.target else (), "to the target {}"),
        ("source", lambda fact: [fact.source] if fact.source else (), "from {}"),
        ("user-agent", lambda fact: [fact.user_agent] if fact.user_agent else (), "of the User-Agent {}"),
        ("rules", lambda fact: [f"{fact.rules} {fact.rules_version}"], "under the rule set {}"),
        ("tag", lambda fact: fact.tags, "with the tag {}"),
        ("tls", lambda fact: [fact.tls] if fact.tls else (), "sent on by {}"),
        ("source-tls", lambda fact: [fact.source_tls] if fact.source_tls else (), "that came by {}"),
    )
    for kind, values_of, words in kinds:
        rows: dict[str, list[int]] = {}
        for at, fact in enumerate(facts):
            if fact.hop == 0 or kind == "address":
                for value in values_of(fact):
                    rows.setdefault(value, []).append(at)
        for value, found in sorted(rows.items()):
            if len(found) >= MIN_FAILED:
                mask = np.zeros(len(facts), dtype=np.bool_)
                mask[found] = True
                yield Column(kind, value, words.format(value), mask)


def _numbers(facts: Sequence[AttemptFacts], whole: Mask) -> Iterator[Column]:
    """Sizes and ages, cut where a quarter, a half and three quarters of them lie."""
    import numpy as np

    def column(values: Sequence[float | None]) -> NDArray[np.float64]:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    sizes = column([fact.invite_bytes for fact in facts])
    known = sizes[~np.isnan(sizes)]
    for cut in np.unique(np.quantile(known, (0.25, 0.5, 0.75))).tolist() if len(known) else ():
        yield Column("size", f"> {cut:.0f}", f"larger than {cut:.0f} bytes", (sizes > cut) & whole)
    for kind, ages, where in (
        ("connection", column([fact.connection_age_s for fact in facts]), "sent on over"),
        ("source-connection", column([fact.source_age_s for fact in facts]), "that came over"),
    ):
        known = ages[~np.isnan(ages)]
        if len(known):
            yield Column(kind, "new", f"{where} a new connection", (ages < _NEW_CONNECTION_S) & whole)
            cut = float(np.median(known))
            yield Column(kind, "old", f"{where} a connection older than {cut:.0f} s", (ages > cut) & whole)


def without(words: str) -> str:
    for with_, without in (
        ("with ", "without "),
        ("that offer ", "that do not offer "),
        ("whose ", "other than those whose "),
    ):
        if words.startswith(with_):
            return without + words.removeprefix(with_)
    return f"other than those {words}"
