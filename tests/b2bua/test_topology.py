"""Nothing of one leg's topology reaches the other, whatever a message looks like; what the application said does."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.rewrite.engine import RuleSet
from proxy.sip.message import Message, Request, Response
from proxy.sip.parser import check_request, parse_message
from tests.b2bua.conftest import finish
from tests.support.bench import ANSWER, CALLER, NO_RULES, OFFER, TARGET, Bench, message_text
from tests.support.rules import shipped

RULES = [
    pytest.param(NO_RULES, id="no rules"),
    pytest.param(shipped(), id="twilio-openai"),
    pytest.param(shipped("minimal"), id="minimal"),
]


def hosts(side: str) -> st.SearchStrategy[str]:
    """Private addresses and inner names; those of the two sides are never the same."""
    odd = 77 if side == "a" else 88
    first = st.sampled_from([f"10.{odd}", f"192.168.{odd}", f"169.254.{odd}", "172.25" if side == "a" else "172.18"])
    octets = st.lists(st.integers(1, 254), min_size=2, max_size=2)
    address = st.builds(lambda start, rest: ".".join([*start.split("."), *map(str, rest)][:4]), first, octets)
    return address | st.builds(f"inner{{}}.{side}-side.example".format, st.integers(1, 10**6))


port = st.sampled_from(["", ":5060", ":5061", ":40000"])
token = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", min_size=3, max_size=20)
user = st.text("0123456789+abcxyz-_!~*'()&=$,;?/", min_size=1, max_size=12).filter(lambda text: text.strip("+"))
display = st.sampled_from(["", "Alice", '"Alice \\"A\\" <x>, y;tag=no"', "Ålice Ü", '"名前"'])
value = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc")), max_size=30)
casing = st.sampled_from([str.lower, str.upper, str.title, lambda text: text])
fold = st.sampled_from([" ", "  ", "\r\n ", "\t"])


@dataclass
class Generated:
    """A message's lines, and the words in them that must not cross."""

    lines: list[str]
    secrets: set[str]
    own: list[tuple[str, str]] = field(default_factory=list)


@st.composite
def topology(draw: st.DrawFn, side: str) -> Generated:
    """Random header fields of the topology, with X- headers between them."""
    made = Generated([], set())

    def address(*params: str) -> str:
        name = draw(hosts(side))
        made.secrets.add(name)
        chosen = draw(st.lists(st.sampled_from(params), unique=True)) if params else []
        return f"sip:{name}{draw(port)}{''.join(chosen)}"

    for _ in range(draw(st.integers(0, 3))):
        values = [f"<{address(';transport=tls', ';r2=on')};lr>" for _ in range(draw(st.integers(1, 2)))]
        name = draw(casing)("record-route")
        made.lines.append(f"{name}:{draw(fold)}{', '.join(values)}")
    if side == "a":
        for _ in range(draw(st.integers(0, 2))):
            made.lines.append(f"{draw(casing)('route')}: <{address()};lr>")
        for _ in range(draw(st.integers(0, 2))):
            via = address().removeprefix("sip:")
            made.lines.append(
                f"{draw(st.sampled_from(['Via', 'v', 'VIA']))}: SIP/2.0/UDP {via};branch=z9hG4bK{draw(token)}"
            )
    for name in draw(st.lists(st.sampled_from(["Path", "Service-Route"]), max_size=1)):
        made.lines.append(f"{name}: <{address()};lr>")
    for number in range(draw(st.integers(0, 3))):
        name, text = f"X-{draw(token)}-{number}", draw(value)
        made.own.append((name, text))
        made.lines.append(f"{name}:{draw(fold)}{text}")
    made.lines = draw(st.permutations(made.lines))
    return made


def application_lines(message: Message, own: list[tuple[str, str]]) -> None:
    """Each X- header is there, once, with its value."""
    for name, text in own:
        assert message.get_all(name.lower()) == [text.strip(" \t")]


def secretive(message: Message, secrets: set[str]) -> None:
    """None of the words stands anywhere but in an X- header."""
    lines = [message.start_line, *[item.line for item in message.headers if not item.key.startswith("x-")]]
    head = "\r\n".join(lines)
    for secret in secrets:
        assert secret not in head


def well_formed(request: Request, *, hops: int) -> None:
    """What every request of ours must be."""
    check_request(request)
    assert len(request.values("via")) == 1
    assert request.via.param("rport") == ""
    assert request.via.branch.startswith("z9hG4bK")
    assert request.via.sent_by == "198.51.100.1:5060"
    assert request.get_all("max-forwards") == [str(hops)]
    assert request.get_all("content-length") == [str(len(request.body))]
    assert request.from_.tag
    for key in ("from", "to", "call-id", "cseq"):
        assert len(request.get_all(key)) == 1


@pytest.mark.parametrize("rules", RULES)
@settings(max_examples=40, deadline=None)
@given(
    came=topology("a"),
    back=topology("b"),
    name=display,
    caller=user,
    caller_host=hosts("a"),
    called_host=hosts("a"),
    contact_host=hosts("a"),
    call_id=token.map("callid-{}".format),
    tag=token.map("from-tag-{}".format),
    target_contact=hosts("b"),
    target_tag=token.map("target-{}".format),
)
def test_nothing_of_either_legs_topology_reaches_the_other(
    rules: RuleSet,
    came: Generated,
    back: Generated,
    name: str,
    caller: str,
    caller_host: str,
    called_host: str,
    contact_host: str,
    call_id: str,
    tag: str,
    target_contact: str,
    target_tag: str,
) -> None:
    bench = Bench(rules=(rules,))
    secrets_a = came.secrets | {caller_host, called_host, contact_host, call_id, tag, CALLER[0], "z9hG4bKtop"}
    dialog = [
        f"From: {name} <sip:{caller}@{caller_host}:5060>;tag={tag}",
        f"Call-ID: {call_id}@{caller_host}",
        f"Contact: <sip:{caller}@{contact_host};transport=udp>",
        "Max-Forwards: 60",
    ]
    invite = [
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKtop",
        f"To: <sip:+15550100001@{called_host};transport=tls>",
        "CSeq: 29044 INVITE",
        *dialog,
        *came.lines,
    ]
    start = f"INVITE sip:+15550100001@{called_host};transport=tls SIP/2.0"
    text = message_text(start, invite, OFFER)
    parsed = parse_message(text.encode())
    bench.receive(text, bench.caller_flow)
    sent = bench.invites[0]
    well_formed(sent, hops=59)
    secretive(sent, secrets_a)
    application_lines(sent, came.own)
    assert sent.from_.uri.user == caller
    assert sent.from_.display == name
    assert sent.uri == "sip:agent@203.0.113.5"

    secrets_b = back.secrets | {target_contact, TARGET[0], sent.call_id, sent.via.branch, f"tag={target_tag}"}
    extra = "\n".join(["Server: OAI inner", *back.lines])
    bench.respond(200, "OK", tag=target_tag, body=ANSWER, extra=extra, contact=f"<sip:OAI@{target_contact}:5061>")
    answer = bench.last_response
    assert answer.status == 200
    secretive(answer, secrets_b)
    application_lines(answer, back.own)
    assert answer.get_all("server") == ["Trunkline"]
    assert answer.call_id == f"{call_id}@{caller_host}"
    assert answer.from_.tag == tag
    assert answer.values("record-route") == parsed.values("record-route")
    assert len(answer.get_all("contact")) == 1
    ack = bench.requests("ACK")[0]
    secretive(ack, secrets_a)
    well_formed(ack, hops=70)

    bye = [
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKbye",
        f"To: {answer.get('to')}",
        "CSeq: 29045 BYE",
        *dialog,
        *came.lines,
    ]
    bench.receive(message_text("BYE sip:trunkline@198.51.100.1:5060 SIP/2.0", bye), bench.caller_flow)
    crossed = bench.requests("BYE") or bench.requests("ACK")
    bench.receive(
        message_text("ACK sip:trunkline@198.51.100.1:5060 SIP/2.0", [*bye[:2], "CSeq: 29044 ACK", *dialog]),
        bench.caller_flow,
    )
    assert crossed[-1].method == "BYE"
    secretive(crossed[-1], secrets_a)
    well_formed(crossed[-1], hops=70)
    application_lines(crossed[-1], came.own)
    finish(bench)


@settings(max_examples=40, deadline=None)
@given(came=topology("b"), method=st.sampled_from(["INFO", "MESSAGE", "NOTIFY", "BYE"]))
def test_nothing_of_the_targets_topology_reaches_the_caller_by_a_request(came: Generated, method: str) -> None:
    bench = Bench()
    bench.answered_call()
    secrets = came.secrets | {TARGET[0], bench.invites[0].call_id, "tag=target"}
    bench.target_request(method, extra="\n".join(came.lines))
    request = bench.caller_requests(method)[0]
    well_formed(request, hops=70 if method == "BYE" else 69)
    secretive(request, secrets)
    application_lines(request, came.own)
    finish(bench)


def test_shipped_rules_hide_private_addresses_and_foreign_hosts_of_a_twilio_invite() -> None:
    bench = Bench(rules=(shipped(),))
    extra = (
        "P-Asserted-Identity: <sip:+15550100002@198.51.100.12:5060>\n"
        "Diversion: <sip:+15550100001@twilio.example>;reason=unconditional\n"
        "X-Twilio-CallSid: CA00\nX-Twilio-AccountSid: AC00\nUser-Agent: Twilio Gateway"
    )
    bench.invite(body=OFFER.replace("o=- 1 1 IN IP4 192.0.2.10", "o=root 1 1 IN IP4 172.18.165.214"), extra=extra)
    invite = bench.invites[0]
    text = invite.serialize().decode()
    for secret in ("172.18.165.214", "198.51.100.12", "twilio.example", "Twilio Gateway"):
        assert secret not in text
    assert invite.get("x-twilio-callsid") == "CA00"
    assert "+15550100001" in (invite.get("diversion") or "")
    assert invite.get("x-trunkline-attempt") == "1"
    assert invite.get("x-trunkline-call-id")
    bench.respond(200, "OK", body=ANSWER, content_type="")
    assert bench.last_response.content_type == "application/sdp"
    assert isinstance(bench.last_response, Response)
    finish(bench)
