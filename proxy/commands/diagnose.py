"""`trunkline diagnose`: the failure report."""

from __future__ import annotations

import orjson
from rich.console import Console

from proxy.commands.calls import CallsError, write_out
from proxy.diagnosis.report import StatisticsMissing, diagnose, report_lines
from proxy.storage.queries import StoreReader

__all__ = ["print_report"]


def print_report(reader: StoreReader, since: float | None, until: float | None, *, as_json: bool) -> None:
    """Print the report of a range of time. Raises CallsError."""
    try:
        report = diagnose(list(reader.facts(since, until)))
    except StatisticsMissing as error:
        raise CallsError(str(error)) from None
    if as_json:
        write_out(orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), None)
        return
    console = Console(highlight=False, markup=False)
    for line in report_lines(report):
        console.print(line, soft_wrap=True)
    dropped = reader.status().dropped
    if dropped:
        console.print(f"{dropped} events could not be stored: some calls are left out.", style="yellow")
