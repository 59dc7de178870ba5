"""How the cost of a call grows inside the core, without sockets: `python -m benchmarks.growth`.

With calls in progress, with the number of rules, with the attempts that a target refuses. Microseconds of CPU, the best
of rounds. The driver's clock runs at 5 calls a second, so that few transactions make a steady state.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Sequence

from benchmarks.callpath import RULES, Driver, is_compiled, measure
from benchmarks.rules import LOOKING, RULE, many
from proxy.b2bua.config import RetryPolicy
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_file

_RATE = 5.0
_STEADY_CALLS = 200  # after so many, transactions end as fast as new ones begin (64*T1)
_CALLS = 100
_ROUNDS = 4
IN_PROGRESS = (10, 100, 1000, 10_000)
RULE_COUNTS = (1, 10, 100, 1000)
RETRIES = (0, 1, 2, 5, 10)
_PATIENT = RetryPolicy(max_attempts=20, deadline_s=1e6, backoff_initial_s=0.0)


def _cost(driver: Driver, refusals: int = 0, calls: int = _CALLS) -> float:
    return round(min(measure(driver, calls, _ROUNDS, refusals)), 1)


def _steady(rules: RuleSet, retry: RetryPolicy | None = None) -> Driver:
    driver = Driver(rules, _RATE, retry)
    measure(driver, _STEADY_CALLS, 1)
    gc.collect()
    gc.freeze()
    return driver


def with_calls_in_progress(rules: RuleSet, counts: Sequence[int] = IN_PROGRESS) -> dict[str, float]:
    """Of a call beside so many others."""
    driver = _steady(rules)
    figures: dict[str, float] = {}
    for count in counts:
        while driver.stack.calls_in_progress < count:
            driver.hold()
        measure(driver, _STEADY_CALLS, 1)
        gc.collect()
        gc.freeze()
        figures[str(count)] = _cost(driver)
    return figures


def with_rules(rule: str, counts: Sequence[int] = RULE_COUNTS) -> dict[str, float]:
    """Of a call with so many rules of a kind, and no others."""
    return {str(count): _cost(_steady(many(count, rule))) for count in counts}


def with_retries(rules: RuleSet, counts: Sequence[int] = RETRIES) -> dict[str, float]:
    """Of a call whose first attempts are refused with 503."""
    figures: dict[str, float] = {}
    for count in counts:
        driver = _steady(rules, _PATIENT)
        measure(driver, _STEADY_CALLS // 4, 1, count)
        figures[str(count)] = _cost(driver, count, _CALLS // 2)
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="How the cost of a call grows inside the core, in microseconds.")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rules = load_file(RULES / "twilio-openai.yaml")
    gc.disable()
    driver = Driver(rules)
    measure(driver, 3500, 1)
    gc.collect()
    gc.freeze()
    driver.by_step.clear()
    figures = measure(driver, 300, 5)
    count = 1500
    report: dict[str, object] = {
        "compiled": is_compiled(),
        "whole": round(min(figures), 1),
        "by_step": {label: round(spent / count / 1e3, 1) for label, spent in driver.by_step.items()},
        "in_progress": with_calls_in_progress(rules),
        "rules_absent": with_rules(RULE),
        "rules_looking": with_rules(LOOKING),
        "retries": with_retries(rules),
    }
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
