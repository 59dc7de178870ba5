"""What is fuzzed: each target takes bytes, does what a peer could make Trunkline do with them, and checks the outcome.

Only the errors that a part says it raises may come out; anything else is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from proxy.audit.records import Change, replay
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, Context, RuleReject, RuleSet
from proxy.rulefiles import RuleFileError, load_text
from proxy.sdp.editor import Editor
from proxy.sdp.errors import SdpError
from proxy.sdp.session import Session
from proxy.sip.errors import SipError
from proxy.sip.message import Request, Response
from proxy.sip.parser import MalformedMessage, StreamFramer, check_request, check_response, parse_message
from proxy.sip.respond import make_response
from tests.support.bench import Bench
from tests.support.rules import shipped

__all__ = ["CORPUS", "TARGETS"]

CORPUS: Final = Path(__file__).parent / "corpus"
_SETS: Final = ("twilio-openai", "minimal", "scanners")


def fuzz_parser(data: bytes) -> None:
    """A datagram: it parses to the byte, or can be answered or dropped; a stream is cut alike however it comes."""
    try:
        message = parse_message(data)
    except MalformedMessage as error:
        if error.partial is not None:
            _answer(error.partial, error.status)
    else:
        sent = message.serialize()
        assert parse_message(sent).serialize() == sent
        try:
            if isinstance(message, Request):
                check_request(message)
                _answer(message, 486)
            else:
                check_response(message)
        except SipError:
            pass
    whole, halves = StreamFramer(), StreamFramer()
    at = len(data) // 2
    assert _feed(whole, data) == _feed(halves, data[:at], data[at:])


def _answer(request: Request, status: int) -> None:
    try:
        answer = make_response(request, status, remote=("192.0.2.1", 5060), to_tag="t")
    except SipError:
        return
    head = answer.serialize().partition(b"\r\n\r\n")[0]
    parsed = parse_message(answer.serialize())
    assert isinstance(parsed, Response)
    assert head.count(b"\x00") == head.count(b"\\\x00")


def _feed(framer: StreamFramer, *chunks: bytes) -> tuple[list[bytes], bool]:
    out: list[bytes] = []
    try:
        for chunk in chunks:
            out += framer.feed(chunk)
        out += framer.feed(b"")
    except MalformedMessage:
        return [item for item in out if len(item) > 4], True
    return [item for item in out if len(item) > 4], False


def fuzz_sdp(data: bytes) -> None:
    """A session description: it is kept to the line, and every edit gives one that parses."""
    try:
        session = Session.parse(data)
    except SdpError:
        return
    assert Session.parse(session.serialize()).serialize() == session.serialize()
    lines = list(session.lines)
    changes: list[Change] = []

    def record(index: int, before: str | None, after: str | None) -> None:
        changes.append(Change("fuzz", "sdp", index, before, after))

    editor = Editor(session, record)
    try:
        editor.add_static_rtpmaps()
        editor.keep_codecs(("PCMU", "PCMA", "telephone-event"))
        editor.keep_crypto(("AES_CM_128_HMAC_SHA1_80",))
        editor.fix_ptime()
        editor.add_required_lines()
    except SdpError:
        return
    Session.parse(session.serialize())
    for change in changes:
        if change.after is None:
            assert lines.pop(change.index) == change.before
        elif change.before is None:
            lines.insert(change.index, change.after)
        else:
            assert lines[change.index] == change.before
            lines[change.index] = change.after
    assert lines == list(session.lines)


def fuzz_rules(data: bytes) -> None:
    """A message through every shipped rule set both ways: what the records say is what came out."""
    try:
        message = parse_message(data)
    except MalformedMessage:
        return
    for name in _SETS:
        _apply(shipped(name), message)


def _apply(rules: RuleSet, message: Request | Response) -> None:
    try:
        draft = Draft(message)
        rules.apply(draft, Context(B_TO_A if draft.status else A_TO_B, source="192.0.2.1"))
        after = draft.finish()
    except (RuleReject, SipError, SdpError):
        return
    start, lines, body = replay(
        message.start_line, [item.line for item in message.headers], message.body, draft.changes
    )
    assert (start, lines, body) == (after.start_line, [item.line for item in after.headers], after.body)


def fuzz_rule_file(data: bytes) -> None:
    """A rule file: it compiles, or its mistakes are told."""
    try:
        rules = load_text(data.decode("utf-8", "replace"), "fuzz.yaml")
    except RuleFileError as error:
        if not error.problems:
            raise RuntimeError("refused without a reason") from error
        return
    _apply(rules, _invite())


@cache
def _invite() -> Request | Response:
    return parse_message((CORPUS / "rules" / "invite").read_bytes())


def fuzz_stack(data: bytes) -> None:
    """Messages one after another, split at NUL NUL, in the midst of a call: no fault, and all ends in the end."""
    bench = Bench(rules=(shipped("twilio-openai"),))
    bench.answered_call()
    for number, part in enumerate(data.split(b"\x00\x00")[:8]):
        bench.receive(part, bench.target_flow if number % 2 else bench.caller_flow)
    bench.stack.hang_up_all("Over", bench.now)
    bench.perform()
    bench.advance(400)
    assert not any(bench.stack.tables(bench.now).values())


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = MappingProxyType(
    {
        "parser": fuzz_parser,
        "sdp": fuzz_sdp,
        "rules": fuzz_rules,
        "rule-file": fuzz_rule_file,
        "stack": fuzz_stack,
    }
)
