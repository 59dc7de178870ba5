"""`trunkline diagnose`: the failure report."""

from __future__ import annotations

import orjson

from proxy.audit.plain import timestamp
from proxy.commands.calls import CallsError, print_report, write_out
from proxy.diagnosis.report import StatisticsMissing, diagnose, report_lines
from proxy.storage.queries import StoreReader

__all__ = ["print_diagnosis"]


def print_diagnosis(reader: StoreReader, since: float | None, until: float | None, *, as_json: bool) -> None:
    """Print the report of a range of time. Raises CallsError."""
    try:
        report = diagnose(list(reader.facts(since, until)))
    except StatisticsMissing as error:
        raise CallsError(str(error)) from None
    if as_json:
        write_out(orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), None)
        return
    lines = report_lines(report)
    status = reader.status()
    if not report.calls and status.oldest is not None:
        lines.append(
            f"The oldest call is of {timestamp(status.oldest)[:16]} UTC; --since and --until say what is looked at."
        )
    if status.dropped:
        lines.append(f"{status.dropped} events could not be stored: some calls are left out.")
    print_report(lines)
