"""What the whole stack makes of each torture message, and the table of it: `python -m tests.b2bua.torture_table`."""

from __future__ import annotations

import sys
from typing import Final

from proxy.sip.message import Request, Response
from tests.sip.torture.table import CASES, DROPPED, FORWARDED, Case
from tests.support.bench import Bench

__all__ = ["outcome", "table"]

_HEAD: Final = """# The torture messages of RFC 4475 and RFC 5118

Each message goes as a datagram through the whole stack, with a caller that is allowed and without rules. *Expected* is
what the RFC accepts of a B2BUA that serves INVITE and OPTIONS and is no registrar (`tests/sip/torture/table.py` says
why); *got* is what came. Written by `python -m tests.b2bua.torture_table`; a test fails when it differs, or when
anything got is not expected.

| RFC | section | message | title | well formed | expected | got | as expected |
|---|---|---|---|---|---|---|---|
"""


def outcome(case: Case, bench: Bench) -> int:
    """Give a message to a bench. Returns the status of the answer, FORWARDED or DROPPED."""
    bench.receive(case.data, bench.caller_flow)
    if any(isinstance(message, Request) and message.method == "INVITE" for message in bench.to_target):
        return FORWARDED
    finals = [message.status for message in bench.to_caller if isinstance(message, Response) and message.status >= 200]
    return finals[0] if finals else DROPPED


def _word(result: int) -> str:
    return {FORWARDED: "forwarded", DROPPED: "dropped"}.get(result, str(result))


def table() -> str:
    """The page with its table."""
    rows: list[str] = []
    good = 0
    for case in CASES:
        got = outcome(case, Bench())
        right = got in case.stack
        good += right
        expected = " or ".join(_word(result) for result in sorted(case.stack))
        cells = (
            str(case.rfc),
            case.section,
            f"`{case.name}`",
            case.title.replace("<", "\\<"),
            "yes" if case.valid else "no",
            expected,
            _word(got),
            "yes" if right else "**no**",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return f"{_HEAD}{chr(10).join(rows)}\n\n{good} of {len(CASES)} as expected.\n"


if __name__ == "__main__":
    sys.stdout.write(table())
