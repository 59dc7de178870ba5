"""Dialog state: identifiers, route set, remote target, CSeq (RFC 3261 section 12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialog.dialog import Dialog
from proxy.sip.errors import SipError
from proxy.sip.message import Request, Response, header
from proxy.sip.parser import check_request, parse_message

VIA = header("Via", "SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bKour")


def invite(
    *extra: str, sender: str = "<sip:a@host>;tag=their", to: str = "<sip:b@us>", contact: str = "<sip:a@1.2.3.4>"
) -> Request:
    """An INVITE of the peer."""
    lines = [
        "INVITE sip:b@us SIP/2.0",
        "Via: SIP/2.0/UDP host;branch=z9hG4bKx",
        f"From: {sender}",
        f"To: {to}",
        "Call-ID: c1",
        "CSeq: 7 INVITE",
        *([f"Contact: {contact}"] if contact else []),
        *extra,
    ]
    message = parse_message("\r\n".join([*lines, "", ""]).encode())
    assert isinstance(message, Request)
    return message


def answer(*extra: str, to: str = "<sip:b@us>;tag=theirs", contact: str = "<sip:b@5.6.7.8:5070>") -> Response:
    """The peer's 200 to our INVITE."""
    lines = [
        "SIP/2.0 200 OK",
        "Via: SIP/2.0/UDP us;branch=z9hG4bKx",
        "From: <sip:a@host>;tag=their",
        f"To: {to}",
        "Call-ID: c1",
        "CSeq: 7 INVITE",
        *([f"Contact: {contact}"] if contact else []),
        *extra,
    ]
    message = parse_message("\r\n".join([*lines, "", ""]).encode())
    assert isinstance(message, Response)
    return message


def test_uas_takes_everything_from_the_request() -> None:
    dialog = Dialog.as_uas(invite("Record-Route: <sip:p1;lr>, <sip:p2;lr>", "Record-Route: <sip:p3;lr>"), "our")
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("c1", "our", "their")
    assert dialog.local == "<sip:b@us>;tag=our"
    assert dialog.remote == "<sip:a@host>;tag=their"
    assert (dialog.local_seq, dialog.remote_seq) == (0, 7)
    assert dialog.route_set == ["<sip:p1;lr>", "<sip:p2;lr>", "<sip:p3;lr>"]
    assert dialog.remote_target == "sip:a@1.2.3.4"


def test_uac_turns_the_route_set_round() -> None:
    dialog = Dialog.as_uac(invite(), answer("Record-Route: <sip:p1;lr>, <sip:p2;lr>", "Record-Route: <sip:p3;lr>"))
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("c1", "their", "theirs")
    assert dialog.local == "<sip:a@host>;tag=their"
    assert dialog.remote == "<sip:b@us>;tag=theirs"
    assert (dialog.local_seq, dialog.remote_seq) == (7, -1)
    assert dialog.route_set == ["<sip:p3;lr>", "<sip:p2;lr>", "<sip:p1;lr>"]
    assert dialog.remote_target == "sip:b@5.6.7.8:5070"


@pytest.mark.parametrize(
    ("to", "local"),
    [
        ("<sip:b@us>", "<sip:b@us>;tag=our"),
        ('"B" <sip:b@us;user=phone>;x=y', '"B" <sip:b@us;user=phone>;x=y;tag=our'),
        ("sip:b@us", "sip:b@us;tag=our"),
        ("sip:b@us;x=y", "<sip:b@us>;x=y;tag=our"),
        ("<sip:b@us>;tag=old;x=y", "<sip:b@us>;x=y;tag=our"),
        ("<sip:b@us>;TAG=old", "<sip:b@us>;tag=our"),
        ('"a;tag=no" <sip:b@us>', '"a;tag=no" <sip:b@us>;tag=our'),
    ],
)
def test_our_tag_goes_into_to_once(to: str, local: str) -> None:
    dialog = Dialog.as_uas(invite(to=to), "our")
    assert dialog.local == local


def test_peer_of_rfc_2543_has_no_tag_and_no_contact() -> None:
    dialog = Dialog.as_uas(invite(sender="<sip:a@host>", contact=""), "our")
    assert dialog.remote_tag == ""
    assert dialog.remote_target == "sip:a@host"
    dialog = Dialog.as_uac(invite(), answer(to="<sip:b@us>", contact=""))
    assert dialog.remote_tag == ""
    assert dialog.remote_target == "sip:b@us"


@pytest.mark.parametrize("route", ['<sip:x;lr>, "', "<>", "<sip:x", "<sip:>", ",<sip:x>"])
def test_route_set_that_can_not_be_followed_is_refused(route: str) -> None:
    with pytest.raises(SipError):
        Dialog.as_uas(invite(f"Record-Route: {route}"), "our")


@pytest.mark.parametrize("route", ['<sip:x;lr>, "', "<>, <>", "<sip:x", "<sip:>"])
def test_answer_whose_route_set_can_not_be_followed_is_refused(route: str) -> None:
    with pytest.raises(SipError):
        Dialog.as_uac(invite(), answer(f"Record-Route: {route}"))


def test_answer_with_a_contact_that_can_not_be_read_is_refused() -> None:
    with pytest.raises(SipError):
        Dialog.as_uac(invite(), answer(contact="<sip:b"))


def test_confirming_takes_route_set_and_target_anew() -> None:
    dialog = Dialog.as_uac(invite(), answer("Record-Route: <sip:p1;lr>"))
    dialog.confirm(answer("Record-Route: <sip:p8;lr>, <sip:p9;lr>", contact="<sip:new@9.9.9.9>"))
    assert dialog.route_set == ["<sip:p9;lr>", "<sip:p8;lr>"]
    assert dialog.remote_target == "sip:new@9.9.9.9"


@pytest.mark.parametrize(
    ("contact", "target"), [("<sip:new@9.9.9.9>", "sip:new@9.9.9.9"), ("<sip:b", None), ("", None), ("*", None)]
)
def test_target_is_refreshed_by_a_contact_that_can_be_read(contact: str, target: str | None) -> None:
    dialog = Dialog.as_uas(invite(), "our")
    dialog.refresh_target(answer(contact=contact))
    assert dialog.remote_target == (target or "sip:a@1.2.3.4")


@pytest.mark.parametrize(
    ("routes", "uri", "sent"),
    [
        ([], "sip:a@1.2.3.4", []),
        (["<sip:p1;lr>", "<sip:p2>"], "sip:a@1.2.3.4", ["<sip:p1;lr>", "<sip:p2>"]),
        (["<sip:p1;lr=on>"], "sip:a@1.2.3.4", ["<sip:p1;lr=on>"]),
        (["<sip:p1;LR>"], "sip:a@1.2.3.4", ["<sip:p1;LR>"]),
        (["<sip:p1>", "<sip:p2;lr>"], "sip:p1", ["<sip:p2;lr>", "<sip:a@1.2.3.4>"]),
        (["<sip:p1;transport=tcp>"], "sip:p1;transport=tcp", ["<sip:a@1.2.3.4>"]),
    ],
)
def test_loose_and_strict_routing(routes: list[str], uri: str, sent: list[str]) -> None:
    dialog = Dialog.as_uas(invite(*[f"Record-Route: {route}" for route in routes]), "our")
    request = dialog.request("BYE", dialog.next_seq(), [VIA])
    assert request.uri == uri
    assert request.get_all("route") == sent


@pytest.mark.parametrize(
    ("routes", "hop"), [([], "1.2.3.4"), (["<sip:p1;lr>", "<sip:p2;lr>"], "p1"), (["<sip:strict>"], "strict")]
)
def test_next_hop_is_the_first_route_or_the_target(routes: list[str], hop: str) -> None:
    dialog = Dialog.as_uas(invite(*[f"Record-Route: {route}" for route in routes]), "our")
    assert dialog.next_hop().host == hop


def test_cseq_of_the_peer_must_grow() -> None:
    dialog = Dialog.as_uas(invite(), "our")
    for number, taken in ((7, False), (6, False), (8, True), (8, False), (2**31 - 1, True), (9, False)):
        request = Request("INFO", "sip:x", [header("CSeq", f"{number} INFO")])
        if taken:
            dialog.accept(request)
        else:
            with pytest.raises(SipError) as caught:
                dialog.accept(request)
            assert caught.value.status == 500


def test_first_request_of_the_peer_may_have_any_cseq() -> None:
    dialog = Dialog.as_uac(invite(), answer())
    dialog.accept(Request("INFO", "sip:x", [header("CSeq", "0 INFO")]))
    with pytest.raises(SipError):
        dialog.accept(Request("INFO", "sip:x", [header("CSeq", "0 INFO")]))


def test_our_numbers_go_up_by_one() -> None:
    dialog = Dialog.as_uac(invite(), answer())
    assert [dialog.next_seq() for _ in range(3)] == [8, 9, 10]
    assert [Dialog.as_uas(invite(), "our").next_seq() for _ in range(2)] == [1, 1]


def test_request_is_whole() -> None:
    dialog = Dialog.as_uas(invite("Record-Route: <sip:p1;lr>"), "our")
    request = dialog.request("INFO", 3, [VIA, header("Max-Forwards", "70")], (header("X-A", "b"),), b"body")
    check_request(request)
    assert request.serialize() == (
        b"INFO sip:a@1.2.3.4 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bKour\r\nMax-Forwards: 70\r\n"
        b"Route: <sip:p1;lr>\r\nFrom: <sip:b@us>;tag=our\r\nTo: <sip:a@host>;tag=their\r\nCall-ID: c1\r\n"
        b"CSeq: 3 INFO\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody"
    )


name = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)


@given(hosts=st.lists(st.tuples(name, st.booleans()), max_size=5), split=st.integers(1, 5))
def test_both_ends_agree_on_the_way_between_them(hosts: list[tuple[str, bool]], split: int) -> None:
    """The route sets of UAS and UAC are the same proxies in opposite order, however the header lines were cut."""
    values = [f"<sip:{host}{';lr' if loose else ''}>" for host, loose in hosts]
    lines = [f"Record-Route: {', '.join(values[at : at + split])}" for at in range(0, len(values), split)]
    uas = Dialog.as_uas(invite(*lines), "our")
    uac = Dialog.as_uac(invite(), answer(*lines))
    assert uas.route_set == uac.route_set[::-1] == values
    for dialog in (uas, uac):
        request = dialog.request("BYE", 1, [VIA])
        check_request(request)
        everything = [request.uri, *[route.strip("<>") for route in request.get_all("route")]]
        proxies = [route.strip("<>") for route in dialog.route_set]
        assert sorted(everything) == sorted([*proxies, dialog.remote_target])
