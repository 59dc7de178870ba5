"""What rules cost: microseconds per message. Run with `python -m benchmarks.rules`.

Each figure is the best of several rounds; drafting the message and parsing its SDP are included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import process_time

from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, Context, RuleSet
from proxy.rulefiles import load_file, load_text
from proxy.sip.message import Message
from proxy.sip.parser import parse_message
from tests.rules.field import INVITE, OK, SDP, whole

RULES = Path(__file__).resolve().parents[1] / "rules"
ROUNDS = 9
LOOPS = 1000

LOOKING = """
  - id: rule-{number}
    why: One of many.
    when: {{direction: a-to-b, method: INVITE, header: {{name: From, matches: '^<sip:\\+1555{number}[0-9]+@'}}}}
    do:
      - set: {{header: X-Found, value: '{number}'}}
"""

RULE = """
  - id: rule-{number}
    why: One of many.
    when: {{direction: a-to-b, method: INVITE, header: {{name: X-Header-{number}, matches: '^sip:[0-9]+@'}}}}
    do:
      - replace: {{header: X-Header-{number}, pattern: '[0-9]+', with: '{{attempt}}'}}
"""


def best_us(work: Callable[[], object], loops: int = LOOPS) -> float:
    """The shortest CPU time of one call in microseconds."""
    times: list[float] = []
    for _ in range(ROUNDS):
        began = process_time()
        for _ in range(loops):
            work()
        times.append(process_time() - began)
    return min(times) / loops * 1e6


def many(count: int, rule: str = RULE) -> RuleSet:
    """A set of rules that differ in a number."""
    rules = "".join([rule.format(number=number) for number in range(count)])
    return load_text(f"version: 1\nname: many\nrules:{rules}", "many.yaml")


def applying(rule_set: RuleSet, message: Message, direction: str) -> Callable[[], object]:
    """One application of a rule set to a fresh draft."""
    context = Context(direction, call_id="5f2c9a", local_host="198.51.100.77", target_host="sip.api.openai.com")

    def work() -> None:
        rule_set.apply(Draft(message), context)

    return work


def main() -> None:
    """Print the figures."""
    invite = parse_message(whole(INVITE, SDP))
    bye = parse_message(whole(INVITE.replace("INVITE", "BYE").replace("Content-Type: application/sdp\n", "")))
    ok = parse_message(whole(*OK.split("\n\n")))
    for name in ("twilio-openai", "minimal"):
        rule_set = load_file(RULES / f"{name}.yaml")
        for label, message, direction in (("INVITE", invite, A_TO_B), ("200 OK", ok, B_TO_A), ("BYE", bye, A_TO_B)):
            print(f"{name:14} {label:7} {best_us(applying(rule_set, message, direction)):8.1f} us")
    for count in (100, 1000):
        print(f"{count:5} rules that find no header   {best_us(applying(many(count), invite, A_TO_B)):8.1f} us")
        looking = many(count, LOOKING)
        print(f"{count:5} rules that look at From     {best_us(applying(looking, invite, A_TO_B), 100):8.1f} us")
        other = applying(looking, bye, A_TO_B)
        print(f"{count:5} rules of another method     {best_us(other):8.1f} us")


if __name__ == "__main__":
    main()
