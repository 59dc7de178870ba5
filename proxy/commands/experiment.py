"""`trunkline experiment report`: arms compared."""

from __future__ import annotations

from dataclasses import asdict

import orjson

from proxy.commands.calls import CallsError, print_report, write_out
from proxy.diagnosis.experiments import Experiment, experiments
from proxy.storage.queries import StoreReader

__all__ = ["print_experiments"]


def print_experiments(reader: StoreReader, since: float | None, until: float | None, *, as_json: bool) -> None:
    """Print the experiments of a range of time. Raises CallsError."""
    try:
        found = experiments(reader.facts(since, until))
    except ImportError:
        raise CallsError("experiments need SciPy: pip install 'trunkline[diagnose]'") from None
    if as_json:
        write_out(orjson.dumps([asdict(item) for item in found], option=orjson.OPT_INDENT_2), None)
        return
    print_report([line for experiment in found for line in (*_lines(experiment), "")])
    if not found:
        print_report(["No experiment: no tags `experiment:NAME=ARM`, and one rule set for all first attempts."])


def _lines(experiment: Experiment) -> list[str]:
    lines = [f"{experiment.name} ({experiment.unit})"]
    width = max([len(arm.name) for arm in experiment.arms])
    for arm in experiment.arms:
        interval = f"{100 * arm.low:.1f} to {100 * arm.high:.1f} %"
        lines.append(f"  {arm.name:<{width}}  {arm.answered} of {arm.calls}, {100 * arm.share:.1f} % ({interval})")
        lines.append(f"  {'':<{width}}  in the end {arm.in_the_end} of {arm.calls} were answered")
    for item in experiment.comparisons:
        interval = f"{100 * item.low:+.1f} to {100 * item.high:+.1f}"
        lines += [
            f"  {item.arm} against {item.against}: {100 * item.difference:+.1f} points ({interval})",
            f"    look {item.look}, at {item.calls} calls in the smaller arm: "
            f"p = {item.p:.2g} (stop below {item.level:.2g})",
        ]
        if experiment.drawn:
            lines.append(f"    {item.verdict}")
            if item.next_calls is not None:
                lines.append(f"    next look at {item.next_calls} calls in the smaller arm")
    if not experiment.drawn:
        lines.append("  These were not drawn by chance: another time or route may make the difference.")
    return lines
