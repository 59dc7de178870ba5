"""Whose a message is, and what two workers hand to each other: no processes, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sip.flow import Flow
from proxy.workers import Exchange, IdMaker, Mesh, _parsed_owner, home_of, owner_of
from tests.sip.strategies import damaged, messages

RESPONSE = (
    "SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 127.0.0.1;branch={branch}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\r\n"
)
REQUEST = "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{mark}\r\nt: <sip:a@b>{tag}\r\n\r\n"


class Side:
    """A worker's exchange, and what it was told."""

    def __init__(self, number: int, mesh: Mesh) -> None:
        self.down: set[int] = set()
        self.exchange = Exchange(number, mesh.workers, mesh.ends_of(number), lambda number: number not in self.down)
        self.received: list[tuple[bytes, Flow]] = []
        self.closed: list[Flow] = []
        self.sent: list[tuple[Flow, bytes]] = []
        self.shut: list[tuple[Flow, str]] = []
        self.datagrams: dict[tuple[str, str, int], Flow] = {}

    def start(self, *, welcome: bool = True) -> None:
        self.exchange.start(
            welcome=lambda flow: welcome,
            receive=lambda data, flow: self.received.append((data, flow)),
            closed=self.closed.append,
            datagram_flow=lambda *key: self.datagrams.get(key),
            send=lambda flow, data: self.sent.append((flow, data)),
            close=lambda flow, why: self.shut.append((flow, why)),
        )


@contextmanager
def two() -> Iterator[tuple[Side, Side]]:
    """Two workers that listen to each other."""
    mesh = Mesh(2)
    sides = Side(0, mesh), Side(1, mesh)
    for side in sides:
        side.start()
    try:
        yield sides
    finally:
        for side in sides:
            side.exchange.stop()
        mesh.close()


async def settle() -> None:
    """Let what was sent arrive."""
    await asyncio.sleep(0.02)


def of(number: int) -> bytes:
    """A request of a worker."""
    return REQUEST.format(mark="x", tag=f";tag={IdMaker(number)()}").encode()


@pytest.mark.parametrize("number", [0, 3, 15])
def test_our_marks_say_whose_a_message_is(number: int) -> None:
    mark = IdMaker(number)()
    assert owner_of(RESPONSE.format(branch=f"z9hG4bK{mark}").encode(), 16) == number
    assert owner_of(REQUEST.format(mark="x", tag=f";tag={mark}").encode(), 16) == number
    assert owner_of(REQUEST.format(mark="x", tag=f";tag={mark}").encode(), number) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"nonsense",
        b"BYE sip:a@b SIP/2.0\r\n\r\n",
        REQUEST.format(mark=IdMaker(1)(), tag="").encode(),
        REQUEST.format(mark="x", tag=";tag=1234").encode(),
        REQUEST.format(mark="x", tag=";tag=z" + 20 * "0").encode(),
        RESPONSE.format(branch="").encode(),
        RESPONSE.format(branch="z9hG4bK").encode(),
    ],
)
def test_what_has_no_mark_of_ours_may_be_anybodys(data: bytes) -> None:
    assert owner_of(data, 16) is None


MARKS = st.sampled_from(["", "1234", *[IdMaker(number)() for number in (0, 3, 15)]])
BRANCHES = st.builds("{}{}".format, st.sampled_from(["z9hG4bK", "", "Z9HG4BK"]), MARKS)
LINES = st.lists(
    st.one_of(
        st.builds(
            "{}{}{};{}={}{}".format,
            st.sampled_from(["Via", "v", "VIA", "Vi", "Via2", "To", "t", "TO", "Tot"]),
            st.sampled_from([":", ": ", " :", "\t: "]),
            st.sampled_from(
                [
                    "SIP/2.0/UDP h",
                    "SIP/2.0/UDP h;branch=x",
                    "<sip:a@b>",
                    '"a>b;tag=1" <sip:a>',
                    "sip:a@b",
                    "<sip:a;tag=z>",
                ]
            ),
            st.sampled_from(["branch", "tag", "Branch", "TAG", "x"]),
            BRANCHES,
            st.sampled_from(["", ";rport", " ", ", SIP/2.0/UDP i;branch=z9hG4bK2", "\r\n ;y", ';q=">"', ";tag=2"]),
        ),
        st.just("From: <sip:a@b>;tag=1"),
    ),
    max_size=5,
)
STARTS = st.sampled_from(["SIP/2.0 200 OK", "BYE sip:a@b SIP/2.0", "INVITE sip:a@b SIP/2.0"])
MARKED = st.builds(
    lambda start, lines, end: "\r\n".join([start, *lines, end]).encode(), STARTS, LINES, st.sampled_from(["\r\n", ""])
)


@given(MARKED | messages() | damaged())
def test_looking_quickly_finds_the_same_owner(data: bytes) -> None:
    """In what can't be parsed it may find one all the same: whoever gets that answers it."""
    owner = _parsed_owner(data, 16)
    assert owner is None or owner_of(data, 16) == owner


@pytest.mark.parametrize("name", ["Call-ID", "i", "CALL-ID", "call-id"])
def test_a_call_id_has_one_home(name: str) -> None:
    text = "{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n{name}: {value}\r\n\r\n"
    homes = set()
    for number in range(50):
        made = [
            home_of(text.format(method=method, name=name, value=f"call{number}").encode(), 4)
            for method in ("INVITE", "CANCEL")
        ]
        assert made[0] == made[1] is not None
        homes.add(made[0])
        assert home_of(text.format(method="OPTIONS", name=name, value=f"call{number}").encode(), 4) is None
    assert homes == {0, 1, 2, 3}


def invite(home: int) -> bytes:
    """An INVITE without a dialog that is at home there, of two workers."""
    for number in range(100):
        data = (
            REQUEST.format(mark="x", tag="").replace("BYE", "INVITE").replace("\r\nt:", f"\r\nCall-ID: c{number}\r\nt:")
        )
        if home_of(data.encode(), 2) == home:
            return data.encode()
    raise AssertionError


PEER = ("udp", ("127.0.0.1", 5060), ("192.0.2.1", 5070), "here", "udp:127.0.0.1:5060")


async def test_calls_by_udp_are_shared_out() -> None:
    with two() as (first, second):
        flow = Flow(*PEER)
        second.datagrams["udp:127.0.0.1:5060", "192.0.2.1", 5070] = flow
        assert first.exchange.hand_over(invite(1), flow)
        assert not first.exchange.hand_over(invite(0), flow)
        await settle()
        assert [data for data, _ in second.received] == [invite(1)]
        by_tcp = Flow("tcp", ("127.0.0.1", 5060), ("192.0.2.1", 5070), "here", "tcp:127.0.0.1:5060")
        assert not first.exchange.hand_over(invite(1), by_tcp), "a call by a connection stays where that is"


async def test_calls_of_strangers_are_not_shared_out() -> None:
    mesh = Mesh(2)
    side = Side(0, mesh)
    side.start(welcome=False)
    try:
        assert not side.exchange.hand_over(invite(1), Flow(*PEER))
    finally:
        side.exchange.stop()
        mesh.close()


async def test_a_call_that_was_taken_in_stays() -> None:
    """Its home did not run; its CANCEL comes once that runs again."""
    with two() as (first, _):
        flow = Flow(*PEER)
        first.down.add(1)
        assert not first.exchange.hand_over(invite(1), flow)
        first.down.clear()
        assert not first.exchange.hand_over(invite(1).replace(b"INVITE", b"CANCEL"), flow)
        other = invite(1).replace(b"Call-ID: c", b"Call-ID: d")
        assert first.exchange.hand_over(other, flow) == (home_of(other, 2) == 1)


async def test_a_datagram_comes_out_at_its_owner_with_the_flow_of_its_own_socket() -> None:
    with two() as (first, second):
        peer = Flow("udp", ("127.0.0.1", 5060), ("192.0.2.1", 5070), "here", "udp:127.0.0.1:5060")
        own = second.datagrams["udp:127.0.0.1:5060", "192.0.2.1", 5070] = Flow("udp", ("", 0), ("", 0), "here")
        assert first.exchange.hand_over(of(1), peer)
        assert not first.exchange.hand_over(of(0), peer)
        assert not first.exchange.hand_over(of(1), Flow("udp", ("", 1), ("", 2), "no listener"))
        await settle()
        assert [flow for _, flow in second.received] == [own]
        assert first.exchange.counters() == {"handed_over": 1, "taken": 0, "hand_over_lost": 0}


async def test_a_connection_is_lent_written_to_closed_and_gone() -> None:
    with two() as (first, second):
        ours = Flow("tls", ("127.0.0.1", 5061), ("192.0.2.1", 5070), "here:5061", "tls:127.0.0.1:5061")
        data = [of(1), of(1)]
        assert all(first.exchange.hand_over(item, ours) for item in data)
        assert first.exchange.lends(ours)
        await settle()
        assert [item for item, _ in second.received] == data
        borrowed = second.received[0][1]
        assert borrowed is second.received[1][1]
        for name in ("transport", "local", "remote", "advertised", "listener", "reliable"):
            assert getattr(borrowed, name) == getattr(ours, name)
        handle = borrowed.handle
        handle.send(borrowed, b"answer \x00\xff")  # type: ignore[attr-defined]
        handle.close("why not")  # type: ignore[attr-defined]
        await settle()
        assert first.sent == [(ours, b"answer \x00\xff")]
        assert first.shut == [(ours, "why not")]
        first.exchange.gone(ours)
        await settle()
        assert second.closed == [borrowed]
        assert borrowed.closed
        assert not first.exchange.lends(ours)


async def test_a_successor_says_that_a_connection_of_its_predecessor_is_gone() -> None:
    mesh = Mesh(2)
    before, after, other = Side(0, mesh), Side(0, mesh), Side(1, mesh)
    before.start()
    other.start()
    try:
        for side in (before, after):
            ours = Flow("tcp", ("127.0.0.1", 5060), ("192.0.2.1", 5070), "here", "tcp:127.0.0.1:5060")
            side.start()
            assert side.exchange.hand_over(of(1), ours)
            await settle()
            if side is before:
                side.exchange.stop()
        old, new = [flow for _, flow in other.received]
        for flow in (old, new):
            flow.handle.send(flow, b"answer")  # type: ignore[attr-defined]
        await settle()
        assert [data for _, data in after.sent] == [b"answer"]
        assert other.closed == [old]
    finally:
        for side in (after, other):
            side.exchange.stop()
        mesh.close()


async def test_a_worker_that_does_not_read_loses_messages_and_blocks_nobody() -> None:
    mesh = Mesh(2)
    side = Side(0, mesh)
    side.start()
    try:
        peer = Flow("udp", ("127.0.0.1", 5060), ("192.0.2.1", 5070), "here", "udp:127.0.0.1:5060")
        for _ in range(5000):
            assert side.exchange.hand_over(of(1) + 60_000 * b" ", peer)
        assert side.exchange.lost > 0
    finally:
        side.exchange.stop()
        mesh.close()
