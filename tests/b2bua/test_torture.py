"""RFC 4475 and RFC 5118 through the whole stack."""

from pathlib import Path

import pytest

from proxy.sip.message import Message, Response
from proxy.sip.parser import parse_message
from proxy.sip.respond import REASON_PHRASES
from tests.b2bua.conftest import BenchMaker
from tests.b2bua.torture_table import outcome, table
from tests.sip.torture.table import CASES, DROPPED, FORWARDED, Case

PAGE = Path(__file__).parents[2] / "docs" / "torture.md"
OF_ONE_LEG = frozenset(
    """
    via max-forwards from to call-id cseq contact route record-route content-length allow supported user-agent require
    proxy-require
    """.split()
)


def name_of(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_message_ends_as_the_rfc_says(case: Case, make_bench: BenchMaker) -> None:
    bench = make_bench()
    got = outcome(case, bench)
    assert got in case.stack
    if got == DROPPED:
        assert bench.wire == []
    elif got != FORWARDED:
        assert bench.to_target == []
        assert bench.stack.calls_in_progress == 0
    for message in bench.to_caller:
        assert isinstance(message, Response)
        assert message.status in REASON_PHRASES


@pytest.mark.parametrize("case", [case for case in CASES if FORWARDED in case.stack], ids=name_of)
def test_forwarded_message_means_the_same(case: Case, make_bench: BenchMaker) -> None:
    bench = make_bench()
    if outcome(case, bench) != FORWARDED:
        return
    (original,) = [event.fields["message"] for event in bench.events if event.kind == "message"][:1]
    sent = bench.invites[0]
    assert isinstance(original, Message)
    crossing = [(item.key, item.value) for item in original.headers if item.key not in OF_ONE_LEG]
    assert [(item.key, item.value) for item in sent.headers if item.key not in OF_ONE_LEG] == crossing
    assert sent.body == original.body
    assert (sent.from_.uri.user, sent.from_.display) == (original.from_.uri.user, original.from_.display)
    assert sent.via.branch.startswith("z9hG4bK")
    assert len(sent.values("via")) == 1
    bench.respond(486)
    final = bench.last_response
    assert (final.status, final.call_id, final.from_.tag) == (486, original.call_id, original.from_.tag)
    assert final.lines("via")[1:] == original.lines("via")[1:]


def test_short_tortuous_invite_without_its_dialog_is_a_call(make_bench: BenchMaker) -> None:
    (case,) = [case for case in CASES if case.name == "wsinv"]
    data = case.data.replace(b";   tag    = 1918181833n", b"")
    assert data != case.data
    bench = make_bench()
    bench.receive(data, bench.caller_flow)
    sent = bench.invites[0]
    assert sent.get("unknownheaderwithunusualvalue") == ";;,,;;,;"
    assert sent.from_.display == '"J Rosenberg \\\\\\""'
    assert sent.body == parse_message(data).body
    assert sent.get("max-forwards") == "67"


def test_page_is_what_came_out() -> None:
    assert PAGE.read_text() == table(), "write it by: python -m tests.b2bua.torture_table > docs/torture.md"
