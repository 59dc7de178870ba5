"""`do`: each action changes what it should, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import RuleReject
from proxy.sip.message import Header
from tests.rewrite.snippets import apply, context, message, rule_set, shown


def after(do: str, snippet: str, **facts: Any) -> str:
    """What an action makes of a message; done twice it makes nothing more of it."""
    rules = rule_set(do)
    direction = "b-to-a" if snippet.startswith("SIP/2.0") else "a-to-b"
    draft = apply(rules, message(snippet), context(direction, **facts))
    return shown(draft, snippet)


@pytest.mark.parametrize(
    ("do", "before", "expected"),
    [
        ("remove: X-A", "X-A: 1\nX-B: 2\nx-a: 3", "X-B: 2"),
        ("remove: [X-A, X-B]", "X-A: 1\nX-B: 2", ""),
        ("remove: s", "Subject: a\nX-A: 1", "X-A: 1"),
        ("remove: Subject", "s: a\nX-A: 1", "X-A: 1"),
        ('remove: "X-*"', "X-A: 1\nY: 2", "Y: 2"),
        ('remove: "*"', "X-A: 1\nno header field", "no header field"),
        ('remove: "*-Twilio-*"', "X-Twilio-CallSid: 1\nX-A: 1", "X-A: 1"),
        ('remove: "C*"', "Call-Info: 1\nContact-Me: 2", ""),
        ("keep-only: X-A", "X-A: 1\nX-B: 2\nno header field", "X-A: 1"),
        ('keep-only: ["X-A*", Date]', "X-A: 1\nX-AB: 2\nX-B: 3\nDate: now", "X-A: 1\nX-AB: 2\nDate: now"),
        ("keep-only: [Via, X-A]", "c: application/sdp\nX-B: 1", "c: application/sdp"),
        ("set: {header: X-A, value: 2}", "X-A: 1", "X-A: 2"),
        ("set: {header: X-A, value: 2}", "x-a: 2", "x-a: 2"),
        ("set: {header: X-A, value: 2}", "x-a: 1", "X-A: 2"),
        ("set: {header: X-A, value: 2}", "X-A: 1\nX-B: 1\nX-A: 3", "X-A: 2\nX-B: 1"),
        ("set: {header: X-A, value: 2}", "X-B: 1", "X-B: 1\nX-A: 2"),
        ('set: {header: X-A, value: "{header.X-None}"}', "X-A: 1", "X-A: 1"),
        ('set: {header: X-A, value: "a{header.X-B}c"}', "X-B: b", "X-B: b\nX-A: abc"),
        ('set: {header: X-A, value: "{{{attempt}}}"}', "", "X-A: {1}"),
        ("set: {header: Content-Type, value: application/sdp}", "c: text/plain", "Content-Type: application/sdp"),
        ("add: {header: X-A, value: 2}", "X-A: 1", "X-A: 1\nX-A: 2"),
        ("add: {header: X-A, value: 2, at: bottom}", "X-A: 1", "X-A: 1\nX-A: 2"),
        ("add: {header: X-A, value: 2, at: top}", "X-A: 1", "X-A: 2\nX-A: 1"),
        ('add: {header: X-A, value: "{header.X-None}"}', "X-B: 1", "X-B: 1"),
        ("rename: {from: X-A, to: X-B}", "X-A: 1\nX-C: 2\nx-a: 3", "X-B: 1\nX-C: 2\nX-B: 3"),
        ("rename: {from: X-A, to: X-B}", "X-A: 1\n 2", "X-B: 1 2"),
        ("replace: {header: X-A, pattern: b, with: c}", "X-A: abb", "X-A: acb"),
        ("replace: {header: X-A, pattern: b, with: c, all: true}", "X-A: abb", "X-A: acc"),
        ("replace: {header: X-A, pattern: z, with: c}", "X-A:  abb", "X-A:  abb"),
        ("replace: {header: X-A, pattern: '^', with: c}", "X-A: abb", "X-A: cabb"),
        ("replace: {header: X-A, pattern: 'x*', with: '-', all: true}", "X-A: abc", "X-A: -a-b-c-"),
        ("replace: {header: X-A, pattern: 'x*', with: '-', all: true}", "X-A: é", "X-A: -é-"),
        ("replace: {header: X-A, pattern: '(a)(b)?(c)', with: '<\\3\\2\\1\\0>'}", "X-A: ac", "X-A: <caac>"),
        ("replace: {header: X-A, pattern: '(?P<x>a)', with: '\\g<x>\\\\\\g<x>'}", "X-A: a", "X-A: a\\a"),
        ('replace: {header: X-A, pattern: a, with: "{call.id}"}', "X-A: a", "X-A: 5f2c9a"),
        ('replace: {header: X-A, pattern: a, with: "{header.X-B}"}', "X-A: a", "X-A: a"),
        ('replace: {header: "X-*", pattern: a, with: b}', "X-A: a\nX-B: a", "X-A: b\nX-B: b"),
        ("replace: {header: X-A, pattern: b, with: ''}", "X-A: a\udcffb", "X-A: a\udcff"),
        ("dedupe: X-A", "X-A: 1\nX-B: 1\nX-A: 2\nX-B: 2", "X-A: 1\nX-B: 1\nX-B: 2"),
        ('dedupe: "X-*"', "X-A: 1\nX-B: 1\nX-A: 2\nX-B: 2", "X-A: 1\nX-B: 1"),
        ("dedupe: singletons", "Subject: 1\nX-B: 1\ns: 2\nX-B: 2", "Subject: 1\nX-B: 1\nX-B: 2"),
        ("dedupe: singletons", "no header\nno header", "no header\nno header"),
        ("unfold: X-A", "X-A: 1\n 2\n\t3\nX-B: 1\n 2", "X-A: 1 2 3\nX-B: 1\n 2"),
        ('unfold: "*"', "X-A : 1\n 2", "X-A: 1 2"),
        ('unfold: "*"', "X-A : 1", "X-A : 1"),
    ],
)
def test_header_action(do: str, before: str, expected: str) -> None:
    assert after(do, before) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<sip:a@10.0.0.1:5060>", "<sip:a@198.51.100.77:5060>"),
        ("172.16.0.1, 172.32.0.1, 192.168.1.1", "198.51.100.77, 172.32.0.1, 198.51.100.77"),
        ("127.0.0.1 169.254.9.9 0.0.0.0", "198.51.100.77 198.51.100.77 198.51.100.77"),
        ("100.64.0.1 100.128.0.1", "198.51.100.77 100.128.0.1"),
        ("<sip:a@[fd00::1]:5060>", "<sip:a@198.51.100.77:5060>"),
        ("<sip:a@[2001:db8::1]:5060>", "<sip:a@[2001:db8::1]:5060>"),
        ("::1 and 10:11:12", "198.51.100.77 and 10:11:12"),
        ("fe80:0:0:0:0:0:0:1", "198.51.100.77"),
        ("version 10.0.0.1.2", "version 10.0.0.1.2"),
        ("1.10.0.0.1", "1.10.0.0.1"),
        ("at 10.0.0.1.", "at 198.51.100.77."),
        ("10.0.0.256", "10.0.0.256"),
        ("203.0.113.10", "203.0.113.10"),
    ],
)
def test_hide_private_addresses(value: str, expected: str) -> None:
    do = 'hide-private-addresses: {with: "{local.host}"}'
    assert after(do, f"Call-Info: {value}") == f"Call-Info: {expected}"


_ADDRESSES = """
    10.0.0.1 010.1.2.3 000.1.2.3 00.0.0.1 100.64.0.1 172.016.0.1 192.168.0.1 169.254.1.1 127.0.0.1 0.0.0.0 8.8.8.8
    198.51.100.12 1.10.0.0.1 10.0.0.1.2 ::1 fd00::1 fe80:0:0:0:0:0:0:1 0:0:0:0:0:ffff:10.0.0.1 ::ffff:10.0.0.1
    2001:db8::1 a - 10 :
""".split()


@given(
    st.lists(st.sampled_from(_ADDRESSES), min_size=1, max_size=4), st.sampled_from([" ", "@", ",", "=", "][", ".", "x"])
)
def test_no_private_address_is_overlooked(pieces: list[str], joint: str) -> None:
    """A value is not passed over that would be changed if it were looked at: beside private addresses it is."""
    rules = rule_set("hide-private-addresses: {with: h}")

    def hidden(value: str) -> str:
        item = apply(rules, message(f"X-A: {value}")).find("x-a")
        assert item is not None
        return item.value

    value = joint.join(pieces)
    assert hidden(f"10.9.9.9 fd00::9 {value}") == f"h h {hidden(value)}"


def test_hide_private_addresses_leaves_out() -> None:
    do = 'hide-private-addresses: {headers: ["X-*", Warning], except: X-B, with: "{local.host}"}'
    before = "Call-Info: 10.0.0.1\nX-A: 10.0.0.1\nX-B: 10.0.0.1\nWarning: 10.0.0.1"
    assert after(do, before) == "Call-Info: 10.0.0.1\nX-A: 198.51.100.77\nX-B: 10.0.0.1\nWarning: 198.51.100.77"


def test_hide_private_addresses_behind_an_ipv6_address() -> None:
    do = 'hide-private-addresses: {with: "{local.host}"}'
    assert after(do, "X-A: <sip:a@10.0.0.1>", local_host="2001:db8::7") == "X-A: <sip:a@[2001:db8::7]>"


def test_identity_is_not_reached_by_globs() -> None:
    before = "X-A: 10.0.0.1"
    contact = "Contact: <sip:a@10.0.0.1>"
    for do in ('remove: "*"', "keep-only: X-B", 'hide-private-addresses: {with: "{local.host}"}', 'dedupe: "*"'):
        rules = rule_set(do)
        draft = apply(rules, message(f"{contact}\n{before}"))
        kept = {item.key for item in draft.headers}
        assert {"via", "from", "to", "call-id", "cseq", "max-forwards", "contact"} <= kept
        assert contact in [item.line for item in draft.headers]


@pytest.mark.parametrize(
    ("edit", "before", "expected"),
    [
        ('host: "{local.host}"', "<sip:a@10.0.0.9:5060>", "<sip:a@198.51.100.77:5060>"),
        ('host: "{local.host}"', "<sip:a@198.51.100.77>;x=1", "<sip:a@198.51.100.77>;x=1"),
        ('host: "{local.host}", port: none', "sip:a@10.0.0.9:5060;x=1", "<sip:a@198.51.100.77>;x=1"),
        ('host: "{local.host}"', "<tel:+1555>", "<tel:+1555>"),
        ('host: "{local.host}"', "<sip:a@anonymous.invalid>", "<sip:a@anonymous.invalid>"),
        ('host: "{local.host}"', "<sip:a@h?Reason=x>;index=1", "<sip:a@198.51.100.77?Reason=x>;index=1"),
        ('host: "{local.host}"', "<urn:service:sos>", "<urn:service:sos>"),
        ('host: "{header.X-None}"', "<sip:a@h>", "<sip:a@h>"),
        ('host: "not a host"', "<sip:a@h>", "<sip:a@h>"),
        ('host: "2001:db8::1"', "<sip:a@h>", "<sip:a@[2001:db8::1]>"),
        ("port: 5070", "<sip:a@h>", "<sip:a@h:5070>"),
        ("scheme: sips", "<sip:a@h>", "<sips:a@h>"),
        ("user: +1666", "<sip:a:pw@h>", "<sip:+1666@h>"),
        ('user: "a b@c>"', "<sip:a@h>", "<sip:a%20b%40c%3E@h>"),
        ("user: é", "<sip:a@h>", "<sip:%C3%A9@h>"),
        ("user: +1666", "<tel:+1555;phone-context=x>", "<tel:+1666;phone-context=x>"),
        ("remove-params: [A, c]", "<sip:a@h;a=1;b;C>", "<sip:a@h;b>"),
        ("keep-params: b", "<sip:a@h;a=1;b;C>", "<sip:a@h;b>"),
        ("keep-params: b", "<sip:a@h;b>", "<sip:a@h;b>"),
        ("remove-header-params: [x]", "<sip:a@h>;X=1;y=2", "<sip:a@h>;y=2"),
        ("display-name: none", '"J" <sip:a@h>', "<sip:a@h>"),
        ("display-name: Jo", "<sip:a@h>", '"Jo" <sip:a@h>'),
        ("display-name: 'J\"\\o'", "<sip:a@h>", '"J\\"\\\\o" <sip:a@h>'),
        ("display-name: Jo", '"Jo" <sip:a@h>', '"Jo" <sip:a@h>'),
        ("port: none", '<sip:a@h:1>, "x, y" <sip:b@h>,<sip:c@h:2>', '<sip:a@h>, "x, y" <sip:b@h>, <sip:c@h>'),
    ],
)
def test_edit_address(edit: str, before: str, expected: str) -> None:
    do = f"edit-address: {{headers: Diversion, {edit}}}"
    assert after(do, f"Diversion: {before}") == f"Diversion: {expected}"
    assert after(do, f"Diversion: {expected}") == f"Diversion: {expected}"


def test_edit_address_removes_what_is_no_address() -> None:
    do = 'edit-address: {headers: [Diversion, From], host: "{local.host}"}'
    before = "Diversion: <sip:a@10.0.0.9\nDiversion: <sip:a@10.0.0.9>\nFrom: <nothing>;tag=1"
    assert after(do, before) == "Diversion: <sip:a@198.51.100.77>\nFrom: <nothing>;tag=1"


def test_edit_address_of_the_request_uri() -> None:
    do = "edit-address: {headers: request-uri, user: bob, port: none}"
    assert after(do, "INVITE sip:a@h:5060;x=1 SIP/2.0\nX-A: 1") == "INVITE sip:bob@h;x=1 SIP/2.0\nX-A: 1"
    assert after(do, "INVITE nonsense SIP/2.0\nX-A: 1") == "INVITE nonsense SIP/2.0\nX-A: 1"
    assert after(do, "SIP/2.0 200 OK\nX-A: 1") == "SIP/2.0 200 OK\nX-A: 1"


@pytest.mark.parametrize(
    ("edit", "before", "expected"),
    [
        ("pattern: '\\+1', with: ''", "<sip:+1555@h>;tag=a+1", "<sip:555@h>;tag=a+1"),
        ("pattern: tag, with: gat", "<sip:a@h>;tag=1", "<sip:a@h>;tag=1"),
        ("pattern: '>', with: '>;tag=2'", "<sip:a@h>;tag=1", "<sip:a@h>;tag=1"),
        ("pattern: sip, with: ''", "<sip:a@h>;tag=1", "<sip:a@h>;tag=1"),
        ("pattern: '^', with: 'Jo '", "<sip:a@h>;tag=1", "Jo <sip:a@h>;tag=1"),
        ("pattern: zzz, with: ''", "sip:a@h;tag=1", "sip:a@h;tag=1"),
        ("pattern: a, with: b", "<broken;tag=1", "<broken;tag=1"),
    ],
)
def test_replace_in_from_leaves_the_tag(edit: str, before: str, expected: str) -> None:
    assert after(f"replace: {{header: From, {edit}}}", f"From: {before}") == f"From: {expected}"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("<sip:a@h;x=1;y;X=2>;p=1;q;P", "<sip:a@h;x=1;y>;p=1;q"),
        ("<sip:a@h;x;y>;p;q", "<sip:a@h;x;y>;p;q"),
        ("<sip:a@h;x;x>,<sip:b@h>", "<sip:a@h;x>, <sip:b@h>"),
        ("<broken;x;x", "<broken;x;x"),
    ],
)
def test_dedupe_params(before: str, expected: str) -> None:
    assert after("dedupe-params: Diversion", f"Diversion: {before}") == f"Diversion: {expected}"
    assert after("dedupe-params: all", f"Diversion: {before}") == f"Diversion: {expected}"
    assert after("dedupe-params: Refer-To", f"Diversion: {before}") == f"Diversion: {before}"


@pytest.mark.parametrize(
    ("do", "before", "expected"),
    [
        ("set-status: {status: 486}", "SIP/2.0 603 Decline", "SIP/2.0 486 Busy Here"),
        ("set-status: {status: 486, reason: Try later}", "SIP/2.0 603 No", "SIP/2.0 486 Try later"),
        ("set-status: {status: 486}", "SIP/2.0 200 OK", "SIP/2.0 200 OK"),
        ("set-status: {status: 486}", "SIP/2.0 180 Ringing", "SIP/2.0 180 Ringing"),
        ("set-status: {status: 180}", "SIP/2.0 183 Progress", "SIP/2.0 180 Ringing"),
        ("set-status: {status: 180}", "SIP/2.0 100 Trying", "SIP/2.0 100 Trying"),
        ("set-status: {status: 180}", "SIP/2.0 486 Busy", "SIP/2.0 486 Busy"),
        ("set-status: {status: 699}", "SIP/2.0 486 Busy", "SIP/2.0 699 Unknown"),
        ("set-status: {status: 486}", "INVITE sip:a@h SIP/2.0", "INVITE sip:a@h SIP/2.0"),
    ],
)
def test_set_status(do: str, before: str, expected: str) -> None:
    assert after(do, before) == expected


@pytest.mark.parametrize(
    ("do", "status", "reason"),
    [
        ("reject: {status: 603}", 603, "Decline"),
        ("reject: {status: 403, reason: Go away}", 403, "Go away"),
        ("reject: {status: 499}", 499, "Rejected"),
    ],
)
def test_reject(do: str, status: int, reason: str) -> None:
    with pytest.raises(RuleReject) as refused:
        after(do, "X-A: 1")
    assert (refused.value.status, refused.value.reason, refused.value.rule) == (status, reason, "rule:test/one")
    for spared in ("ACK sip:a@h SIP/2.0", "CANCEL sip:a@h SIP/2.0", "SIP/2.0 200 OK"):
        assert after(do, f"{spared}\nX-A: 1") == f"{spared}\nX-A: 1"


@pytest.mark.parametrize(
    "do",
    [
        "set: {header: X-A, value: '{header.X-B}'}",
        "add: {header: X-A, value: '{header.X-B}'}",
        "replace: {header: X-A, pattern: '$', with: '{header.X-B}'}",
        "edit-address: {headers: Diversion, display-name: '{header.X-B}'}",
        "edit-address: {headers: Diversion, user: '{header.X-B}', host: '{header.X-B}'}",
        "hide-private-addresses: {with: '{header.X-B}'}",
    ],
)
def test_no_value_injects_a_line(do: str) -> None:
    """Whatever is in a message that no parser has seen, nothing but one line comes of it."""
    draft = Draft(message("X-A: 1\nDiversion: <sip:a@10.0.0.1>"))
    draft.append(Header("x-b", "X-B: 1", "1\r\nX-Evil: 1\x00"))
    rule_set(do).apply(draft, context())
    assert all("\n" not in (change.after or "") and "\x00" not in (change.after or "") for change in draft.changes)


def test_step_is_restored() -> None:
    draft = Draft(message("X-A: 1"))
    draft.step = "builtin:mine"
    rule_set("remove: X-A").apply(draft, context())
    assert (draft.step, [change.step for change in draft.changes]) == ("builtin:mine", ["rule:test/one"])
