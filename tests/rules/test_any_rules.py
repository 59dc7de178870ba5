"""Whatever the rules and the message: the records say what was done, the result parses, identity is untouched."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.audit.records import replay
from proxy.rewrite.compiler import ACTIONS
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import Decision, RuleReject, RuleSet
from proxy.rewrite.match import WHEN_KEYS
from proxy.rewrite.sdp_actions import SDP_OPERATIONS
from proxy.rulefiles import load_text
from proxy.sip.message import Message
from proxy.sip.parser import MalformedMessage, parse_message
from tests.rewrite.snippets import context, message
from tests.rules.field import CANDIDATES, INVITE, OK, RUBBISH_LINES, SDP, whole
from tests.rules.test_shipped import RICH

HEADER = st.sampled_from(
    ["X-A", "X-Correlation", "Subject", "P-Asserted-Identity", "Diversion", "Privacy", "Date", "s"]
)
GLOB = st.sampled_from(["*", "X-*", "P-*", "*-A", "D*n"])
ADDRESS = st.sampled_from(["From", "To", "P-Asserted-Identity", "Diversion", "Refer-To", "request-uri", "History-Info"])
INSTANCE = st.sampled_from([1, 2, "last"])
PATTERN = st.sampled_from(["a", "[0-9]+", "sip:", "^", "$", ".*", "(?P<c>.)", "(a|b)*", "(?i)SIP", "[^@]+@", "\\xff?"])
PART = st.sampled_from(["user", "host", "port", "scheme", "uri", "display-name", "param.x", "header-param.reason"])
TEXT = st.sampled_from(
    [
        "1",
        "a b",
        "{from.user}",
        "{header.X-A}",
        "{header.X-A[last]|default:none}",
        "{header.Diversion|host}",
        "{sdp.audio.address}:{sdp.audio.port}",
        "{request-uri.uri|escape}",
        "{source|mask}{call.id}",
        "{from.display-name}",
        '"quoted" \\ <b>;x=1',
        "\u00e9\u20ac",
        "{header.Subject|upper|first:3}",
        "{header.X-Bytes}",
        "{{{method}}} {status} {reason} {size}",
    ]
)
NUMBERS = st.sampled_from([1, ">=1", "<3", "2-4", ">300"])
CODECS = st.lists(st.sampled_from(["PCMU", "PCMA", "opus", "telephone-event", "G729"]), min_size=1, max_size=3)
NAMES = HEADER | GLOB | st.lists(HEADER, min_size=1, max_size=3)
TEXTS = TEXT | st.lists(TEXT, min_size=1, max_size=2)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with at least one of these keys."""
    return st.fixed_dictionaries({}, optional=fields).filter(bool)


def one_of_tests(names: st.SearchStrategy[str] | None) -> st.SearchStrategy[dict[str, Any]]:
    tests: list[tuple[str, st.SearchStrategy[Any]]] = [
        ("present", st.booleans()),
        ("absent", st.booleans()),
        ("equals", TEXTS),
        ("contains", TEXT),
        ("glob", st.sampled_from(["*", "<*", "*1*", "a"])),
        ("matches", PATTERN),
        ("number", NUMBERS),
        ("private-address", st.booleans()),
    ]
    if names is not None:
        tests.append(("count", NUMBERS))
    required = {} if names is None else {"name": names | st.sampled_from(["Via", "From", "Contact"])}
    optional = {"part": PART} if names is None else {"part": PART, "instance": INSTANCE}
    return st.one_of([st.fixed_dictionaries({**required, name: value}, optional=optional) for name, value in tests])


SDP_FACTS = some(
    **{
        "has-codec": CODECS,
        "media": st.sampled_from(["audio", "video"]),
        "protocol": st.just("RTP/AVP"),
        "crypto": st.just("AES_CM_128_HMAC_SHA1_80"),
        "direction": st.sampled_from(["sendrecv", "inactive"]),
        "attribute": st.sampled_from(["rtpmap", "ice-*"]),
        "private-address": st.sampled_from(["origin", "connection", "rtcp"]),
        "streams": NUMBERS,
        "ptime": NUMBERS,
    }
)
PLAIN_WHEN: dict[str, st.SearchStrategy[Any]] = {
    "direction": st.sampled_from(["a-to-b", "b-to-a"]),
    "method": st.sampled_from(["INVITE", ["INVITE", "BYE"]]),
    "attempt": NUMBERS,
    "transport": st.sampled_from(["tls", "udp"]),
    "source": st.sampled_from(["192.0.2.0/24", "::/0"]),
    "trunk": st.sampled_from(["*", "x"]),
    "target": st.sampled_from(["*", "x"]),
    "tag": st.sampled_from(["*", "x"]),
    "share": st.sampled_from([0, 50, 100]),
    "size": NUMBERS,
    "request-uri": one_of_tests(None),
    "header": one_of_tests(HEADER | GLOB),
    "has-sdp": st.booleans(),
    "sdp": SDP_FACTS,
}
WHEN = st.recursive(
    st.fixed_dictionaries({}, optional=PLAIN_WHEN) | some(message=st.just("request")) | some(status=st.just("2xx")),
    lambda inner: (
        some(all=st.lists(inner, min_size=1, max_size=2), any=st.lists(inner, min_size=1, max_size=2))
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=3,
)
SDP_DO = some(
    **{
        "keep-media": st.just("audio"),
        "drop-media": st.just("video"),
        "codecs": CODECS | st.just("safe"),
        "deny-codecs": CODECS,
        "order-codecs": CODECS,
        "static-rtpmaps": st.just(True),
        "drop-dangling": st.just(True),
        "required-lines": st.just(True),
        "payloads": st.dictionaries(
            st.sampled_from(["opus", "telephone-event", "PCMU"]), st.sampled_from([0, 8, 96, 101, 111]), min_size=1
        ),
        "profile": st.sampled_from(["RTP/AVP", "RTP/AVPF", "RTP/SAVP"]),
        "ptime": st.just(True),
        "ptime-ms": st.just(20),
        "maxptime-ms": st.just(40),
        "crypto": st.just("safe"),
        "drop-attributes": st.sampled_from(["webrtc", "rtpmap", "*"]),
        "keep-attributes": st.just(["rtpmap"]),
        "set-attributes": st.just({"label": "{header.Subject}", "rtcp-mux": ""}),
        "set-session-attributes": st.just({"tool": "t"}),
        "set-bandwidth": st.just({"AS": 64}),
        "drop-bandwidth": st.just(True),
        "direction": st.sampled_from(["sendonly", "inactive"]),
        "origin-address": TEXT,
        "origin-user": TEXT,
        "connection-address": TEXT,
        "session-name": TEXT,
    }
)
EDIT = {
    "instance": INSTANCE,
    "scheme": st.sampled_from(["sip", "sips", "tel"]),
    "user": TEXT,
    "host": TEXT,
    "port": st.sampled_from([5070, "none"]),
    "display-name": TEXT | st.just("none"),
    "remove-params": st.just(["transport", "x"]),
    "keep-params": st.just(["user"]),
    "set-params": st.dictionaries(st.sampled_from(["x", "user"]), TEXT, min_size=1),
    "remove-header-params": st.just("reason"),
    "keep-header-params": st.just("reason"),
    "set-header-params": st.dictionaries(st.sampled_from(["x", "reason"]), TEXT, min_size=1),
}
REPLACE = {"pattern": PATTERN, "with": TEXT.filter(lambda text: "\\" not in text), "all": st.booleans()}
DO: dict[str, st.SearchStrategy[Any]] = {
    "remove": NAMES | st.fixed_dictionaries({"header": HEADER, "instance": INSTANCE}),
    "keep-only": NAMES,
    "set": st.fixed_dictionaries({"header": HEADER, "value": TEXT}, optional={"instance": INSTANCE}),
    "add": st.fixed_dictionaries({"header": st.sampled_from(["X-A", "X-B"]), "value": TEXT, "at": st.just("top")}),
    "rename": st.fixed_dictionaries({"from": HEADER, "to": HEADER}),
    "replace": st.fixed_dictionaries({"header": HEADER | st.just("From"), **REPLACE}, optional={"instance": INSTANCE}),
    "replace-body": st.fixed_dictionaries(REPLACE),
    "remove-body": st.just(True),
    "dedupe": st.just("singletons") | NAMES,
    "unfold": NAMES,
    "split": NAMES,
    "join": NAMES,
    "move": st.fixed_dictionaries({"header": NAMES, "to": st.sampled_from(["top", "bottom"])})
    | st.fixed_dictionaries({"header": NAMES, "after": HEADER}),
    "hide-private-addresses": st.just({"with": "{local.host}"}),
    "edit-address": st.tuples(ADDRESS, some(**EDIT).filter(lambda given: set(given) != {"instance"})).map(
        lambda pair: {"headers": pair[0], **pair[1]}
    ),
    "dedupe-params": st.just("all"),
    "e164": st.fixed_dictionaries({"headers": ADDRESS, "country": st.sampled_from([1, 49])}),
    "sdp": SDP_DO,
    "set-status": st.just({"status": 486, "reason": "Busy"}),
    "reject": st.just({"status": 403}),
    "drop": st.just(True),
    "route": TEXT,
    "retry": st.just("never"),
    "tag": TEXTS,
    "note": TEXT,
    "remember": st.dictionaries(st.sampled_from(["a", "b"]), TEXT, min_size=1),
    "stop": st.sampled_from([True, "set"]),
}
RARE = frozenset(("reject", "drop", "stop", "retry", "set-status"))
ACTION = st.one_of(
    [st.fixed_dictionaries({name: value}) for name, value in DO.items() if name not in RARE]
    + [st.one_of([st.fixed_dictionaries({name: DO[name]}) for name in sorted(RARE)])]
)
RULE = st.fixed_dictionaries({"do": st.lists(ACTION, min_size=1, max_size=3)}, optional={"when": WHEN})


def compiled(found: list[dict[str, Any]]) -> RuleSet | None:
    """The rules as a set; None where a status meets a reject, which is refused at load."""
    rules = [{"id": f"r{at}", "why": "w", **rule} for at, rule in enumerate(found)]
    actions = [(rule, {name for action in rule["do"] for name in action}) for rule in rules]
    for rule, names in actions:
        kinds = [names & {"reject", "route", "retry"}, names & {"set-status"} or {"status"} & set(rule.get("when", {}))]
        if all(kinds) or (kinds[1] and "message" in rule.get("when", {})):
            return None
    return load_text(json.dumps({"version": 1, "name": "any", "rules": rules}), "any.yaml")


def identity(whole_message: Message) -> list[tuple[str, str]]:
    """What no rule may touch, as a test of its own sees it."""
    keys = "via call-id cseq contact max-forwards record-route route content-length".split()
    found = [(item.key, item.value) for item in whole_message.headers if item.key in keys]
    tags = [
        (key, item.value.rpartition(">")[2].partition(";tag=")[2].partition(";")[0])
        for key in ("from", "to")
        for item in whole_message.headers
        if item.key == key
    ]
    return found + tags


MESSAGES = st.tuples(
    st.lists(st.sampled_from([*CANDIDATES, *RUBBISH_LINES, "X-A: 1", "X-A: <sip:a@10.0.0.1>, b"]), max_size=6),
    st.sampled_from(["", SDP, RICH, "v=0\nbroken", "v=0\nm=audio 0 RTP/AVP 0"]),
    st.booleans(),
)


def test_every_condition_action_and_operation_is_generated() -> None:
    assert set(DO) | {"include"} == set(ACTIONS)
    assert set(PLAIN_WHEN) | {"message", "status", "all", "any", "not"} == set(WHEN_KEYS)
    assert len(SDP_OPERATIONS) == 25


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(RULE, min_size=1, max_size=5), MESSAGES)
def test_any_rules_on_any_message(found: list[dict[str, Any]], given_message: tuple[list[str], str, bool]) -> None:
    rule_set = compiled(found)
    extra, sdp, is_request = given_message
    head = "\n".join([INVITE if is_request else OK.partition("\n\n")[0], *extra])
    try:
        before = parse_message(whole(head, sdp))
    except MalformedMessage:
        return
    if rule_set is None:
        return
    draft = Draft(before)
    facts = context("a-to-b" if is_request else "b-to-a", tags=[], decision=Decision())
    refused: RuleReject | None = None
    try:
        rule_set.apply(draft, facts)
    except RuleReject as reject:
        refused = reject
    if refused is not None:
        assert 400 <= refused.status <= 699
        assert refused.reason.isprintable()
        return
    after = draft.finish()
    lines = [item.line for item in after.headers]
    replayed = replay(before.start_line, [item.line for item in before.headers], before.body, draft.changes)
    assert replayed == (after.start_line, lines, after.body)
    assert identity(after) == identity(before)
    after.headers[:] = [item for item in after.headers if item.key != "content-length"]  # it is written after the rules
    again = parse_message(after.serialize())
    assert [item.line for item in again.headers] == [item.line for item in after.headers]
    assert again.start_line == after.start_line
    assert all(tag.isprintable() for tag in facts.tags or ())


def doing(count: int, action: dict[str, Any]) -> RuleSet:
    """A set of many rules that do the same."""
    rules = [{"id": f"r{at}", "why": "w", "do": [action]} for at in range(count)]
    return load_text(json.dumps({"version": 1, "name": "any", "rules": rules}), "any.yaml")


def test_ten_thousand_rules_on_one_message() -> None:
    """Rules that all fire take time in proportion to their number."""
    rule_set = doing(10_000, {"replace": {"header": "X-A", "pattern": "^(.)(.)", "with": "\\2\\1"}})
    draft = Draft(message("X-A: 12"))
    began = perf_counter()
    rule_set.apply(draft, context())
    assert perf_counter() - began < 10
    assert len(draft.changes) == 10_000


def test_values_do_not_grow_without_bound() -> None:
    """Doubling a value again and again ends at a limit instead of in memory."""
    for action in (
        {"set": {"header": "X-A", "value": "{header.X-A}{header.X-A}"}},
        {"replace": {"header": "X-A", "pattern": ".+", "with": "\\0\\0"}},
        {"replace": {"header": "X-A", "pattern": "$|1", "with": "{header.X-A}", "all": True}},
        {"remember": {"a": "{var.a|default:x}{var.a|default:x}"}},
    ):
        draft = Draft(message("X-A: 1"))
        facts = context()
        began = perf_counter()
        doing(60, action).apply(draft, facts)
        assert perf_counter() - began < 5
        assert max([len(item.value) for item in draft.headers]) <= 65_536
        assert all(len(text) <= 8192 for text in (facts.values or {}).values())
