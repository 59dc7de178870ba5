"""Transfers in every order of events: whatever happens when, nothing breaks, every call ends and nothing is left."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.sip.flow import Flow
from proxy.sip.message import Message, Request, Response
from tests.b2bua.conftest import finish
from tests.support.bench import ANSWER, CALLER, OFFER, TARGET, Bench, message_text

THIRD = ("198.18.0.7", 5060)
STATUSES = (100, 180, 183, 200, 200, 200, 202, 401, 408, 422, 481, 486, 488, 491, 500, 503)
BODIES = {
    CALLER: OFFER,
    TARGET: ANSWER,
    THIRD: ANSWER.replace("203.0.113.5", "198.18.0.7").replace("m=audio 5000", "m=audio 7000"),
}


class Party:
    """One of the three around the stack: answers what it got, and asks in the dialogs that it has."""

    def __init__(self, bench: Bench, address: tuple[str, int]) -> None:
        self.bench = bench
        self.address = address
        self.body = BODIES[address]
        self.contact = f"<sip:party@{address[0]}:{address[1]}>"
        self.seq = 100

    def got(self) -> list[tuple[Flow, Message]]:
        return [(flow, message) for _, flow, message in self.bench.wire if flow.remote == self.address]

    def answer(self, index: int, status: int, session: bool) -> None:
        """Answer one of the last requests that came, in whatever state it is."""
        requests = [(f, m) for f, m in self.got() if isinstance(m, Request) and m.method not in ("ACK", "CANCEL")]
        if not requests:
            return
        flow, request = requests[-1 - index % min(len(requests), 3)]
        body = self.body if session and request.method in ("INVITE", "UPDATE") and status < 300 else ""
        self.bench.respond(
            status, request=request, flow=flow, tag=f"tag-{self.address[0]}", body=body, contact=self.contact
        )

    def comply(self) -> None:
        """Answer the last request that came as it should be answered, and acknowledge the last 200."""
        self.answer(0, 200, session=True)
        self.acknowledge()

    def dialogs(self) -> list[tuple[Flow, str, str, str]]:
        """(flow, From, To, Call-ID) of each dialog as this party would write them."""
        found: dict[str, tuple[Flow, str, str, str]] = {}
        for flow, message in self.got():
            ours, theirs = message.get("from") or "", message.get("to") or ""
            if isinstance(message, Response) and message.to.tag:
                found[message.call_id] = (flow, ours, theirs, message.call_id)
            elif isinstance(message, Request) and message.method != "OPTIONS":
                to = theirs if message.to.tag else f"{theirs};tag=tag-{self.address[0]}"
                found[message.call_id] = (flow, to, ours, message.call_id)
        return list(found.values())

    def ask(self, index: int, method: str, extra: str = "", body: str = "", seq: int = 0) -> None:
        dialogs = self.dialogs()
        if not dialogs:
            return
        flow, ours, theirs, call_id = dialogs[-1 - index % min(len(dialogs), 2)]
        if flow.closed:
            return
        self.seq += 1
        self.bench.receive(
            message_text(
                f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0",
                [
                    f"Via: SIP/2.0/{flow.transport.upper()} {self.address[0]}:5060;branch={self.bench.branch()}",
                    "Max-Forwards: 70",
                    f"From: {ours}",
                    f"To: {theirs}",
                    f"Call-ID: {call_id}",
                    f"CSeq: {seq or self.seq} {method}",
                    f"Contact: {self.contact}",
                    *extra.splitlines(),
                ],
                body,
            ),
            flow,
        )

    def acknowledge(self) -> None:
        """ACK the last 200 that came for an INVITE."""
        for _, message in reversed(self.got()):
            if isinstance(message, Response) and message.status == 200 and message.cseq.method == "INVITE":
                self.ask(0, "ACK", seq=message.cseq.number)
                return


Act = Callable[[Bench, dict[str, Party]], None]
WHO = st.sampled_from(["caller", "target", "third"])


def answering(who: str, index: int, status: int, session: bool) -> Act:
    return lambda bench, parties: parties[who].answer(index, status, session)


def asking(who: str, index: int, method: str) -> Act:
    def act(bench: Bench, parties: dict[str, Party]) -> None:
        party = parties[who]
        if method == "REFER":
            party.ask(index, method, "Refer-To: <sip:bob@198.18.0.7>")
        elif method == "ACK":
            party.acknowledge()
        else:
            party.ask(index, method, body=party.body if method in ("INVITE", "UPDATE") else "")

    return act


def taking_over(who: str) -> Act:
    """An INVITE with Replaces that names a dialog of this party."""

    def act(bench: Bench, parties: dict[str, Party]) -> None:
        dialogs = parties[who].dialogs()
        if dialogs:
            flow, ours, theirs, call_id = dialogs[-1]
            own, other = ours.rpartition("tag=")[2], theirs.rpartition("tag=")[2]
            if not flow.closed:
                extra = f"Replaces: {call_id};to-tag={other};from-tag={own}"
                bench.invite(call_id=f"new-{bench.branch()}", tag="new", extra=extra, flow=flow)

    return act


def complying(who: str) -> Act:
    return lambda bench, parties: parties[who].comply()


def waiting(seconds: float) -> Act:
    return lambda bench, parties: bench.advance(seconds)


def breaking(who: str) -> Act:
    def act(bench: Bench, parties: dict[str, Party]) -> None:
        got = parties[who].got()
        if got and not got[-1][0].closed and got[-1][0].reliable:
            bench.close(got[-1][0])

    return act


ACTS = st.one_of(
    st.builds(complying, WHO),
    st.builds(complying, WHO),
    st.builds(answering, WHO, st.integers(0, 2), st.sampled_from(STATUSES), st.booleans()),
    st.builds(asking, WHO, st.integers(0, 1), st.sampled_from(["REFER", "BYE", "INVITE", "UPDATE", "INFO", "ACK"])),
    st.builds(waiting, st.sampled_from([0.1, 0.6, 2.5, 5.0, 33.0])),
    st.builds(breaking, WHO),
    st.builds(taking_over, WHO),
)


AS_IT_SHOULD = ("target", "third", "caller", "target", "target")
"""NOTIFY, INVITE, re-INVITE, NOTIFY, BYE: who answers next in a transfer without trouble."""


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@given(acts=st.lists(ACTS, max_size=25), expires=st.sampled_from([0, 90]), well=st.integers(0, len(AS_IT_SHOULD)))
@settings(max_examples=120, deadline=None)
def test_any_order_of_events_ends_well(transport: str, acts: list[Act], expires: int, well: int) -> None:
    """After `well` steps as they should be, anything may happen."""
    bench = Bench(refer="execute", transport=transport, caller_transport=transport, session_expires_s=expires)
    parties = {"caller": Party(bench, CALLER), "target": Party(bench, TARGET), "third": Party(bench, THIRD)}
    bench.invite()
    bench.respond(200, "OK", body=ANSWER, tag=f"tag-{TARGET[0]}")
    parties["caller"].ask(0, "ACK", seq=1)
    parties["target"].ask(0, "REFER", "Refer-To: <sip:bob@198.18.0.7>")
    for who in AS_IT_SHOULD[:well]:
        parties[who].comply()
    for act in acts:
        act(bench, parties)
    finish(bench)
