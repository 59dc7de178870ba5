"""What the parts of the call path cost, by pyperf: `python -m benchmarks.micro [-o FILE]`.

CPU time, not wall time, in several processes one after another. `python -m pyperf compare_to OLD.json NEW.json`
compares two such files; `--help` has pyperf's options.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import process_time

import pyperf

from benchmarks.callpath import INVITE_HEAD, OFFER, RULES
from proxy.audit.records import Event
from proxy.audit.redact import Redaction, Redactor
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, Context
from proxy.rulefiles import load_file
from proxy.sdp.session import Session
from proxy.sip.flow import Flow
from proxy.sip.message import Request
from proxy.sip.parser import check_request, parse_message
from proxy.sip.respond import make_response
from proxy.transaction.layer import TransactionLayer
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import TimerQueue, TimerSettings


class _User:
    """Takes what the transaction layer reports, and answers at once."""

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        tx.respond(make_response(tx.request, 200, to_tag="t"), now)

    def on_ack(self, *_: object) -> None: ...

    def on_cancel(self, *_: object) -> None: ...

    def on_stray_response(self, *_: object) -> None: ...

    def on_server_failure(self, *_: object) -> None: ...


def transaction_step() -> Callable[[], object]:
    """A BYE through a server transaction to its end: taken, answered, timer J fired."""
    timers = TimerQueue()
    layer = TransactionLayer(TimerSettings(), timers, lambda flow, data: None, _User())
    flow = Flow("udp", ("198.51.100.1", 5060), ("192.0.2.10", 5060), "198.51.100.1:5060")
    bye = (
        "BYE sip:a@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
        "From: <sip:b@192.0.2.10>;tag=1\r\nTo: <sip:a@198.51.100.1>;tag=2\r\nCall-ID: x\r\nCSeq: 2 BYE\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    request = parse_message(bye.encode())
    assert isinstance(request, Request)

    def work() -> None:
        layer.receive_request(request, flow, 0.0)
        timers.run(100.0)

    return work


def steps() -> dict[str, Callable[[], object]]:
    """The parts by name, each as work to be done again and again."""
    data = (INVITE_HEAD.format(n=1, length=len(OFFER)) + OFFER).encode()
    invite = parse_message(data)
    assert isinstance(invite, Request)
    rules = load_file(RULES / "twilio-openai.yaml")
    context = Context(A_TO_B, call_id="5f2c9a", local_host="198.51.100.77", target_host="sip.api.openai.com")

    def check() -> None:
        request = parse_message(data)
        assert isinstance(request, Request)
        check_request(request)

    def ruled() -> Draft:
        draft = Draft(invite)
        rules.apply(draft, context)
        return draft

    draft = ruled()
    text = invite.serialize().decode()
    fields: dict[str, object] = {"message": invite, "changes": draft.changes}
    return {
        "parse an INVITE": lambda: parse_message(data),
        "parse and check it": check,
        "serialize it": invite.serialize,
        "read its SDP, write it": lambda: Session.parse(invite.body).serialize(),
        "default rules on it": ruled,
        "a BYE transaction": transaction_step(),
        "audit event of it": lambda: Event("message", 1.0, "c", "a", 1, fields),
        "mask it for a log": lambda: Redactor(Redaction()).text(text),
    }


def _timed(loops: int, work: Callable[[], object]) -> float:
    turns = range(loops)
    began = process_time()
    for _ in turns:
        work()
    return process_time() - began


def main() -> None:
    """Measure, and print as pyperf does."""
    runner = pyperf.Runner(processes=3, values=3, min_time=0.05, program_args=("-m", "benchmarks.micro"))
    for name, work in steps().items():
        runner.bench_time_func(name, _timed, work)


def read(file: Path) -> dict[str, float]:
    """The medians of a file that `-o` wrote, in microseconds."""
    suite = pyperf.BenchmarkSuite.load(str(file))
    return {bench.get_name(): round(bench.median() * 1e6, 2) for bench in suite.get_benchmarks()}


if __name__ == "__main__":
    main()
