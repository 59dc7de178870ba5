"""What is known of a session without looking, and what is left out since there is nothing to do, is right."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from proxy.sdp import Editor, SdpError, Session
from proxy.sdp.address import is_private_address
from proxy.sdp.line_changes import Undangle
from proxy.sdp.session import DIRECTIONS, attribute_of
from tests.sdp.strategies import BODIES, BUILT, SECTION_LINES
from tests.sdp.test_properties import OPERATIONS, attempt, parsed, views

_TIDY_LINES = st.sampled_from(
    [
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=maxptime:20",
        "a= ptime:20",
        "a=ptime:30 ",
        "a=sendrecv",
        "a=rtpmap",
    ]
)
_HEAD = ["v=0", "o=- 1 1 IN IP4 h", "s=-", "t=0 0", "m=audio 9 RTP/AVP 0 101"]
_NEARLY_TIDY = st.lists(st.one_of(_TIDY_LINES, _TIDY_LINES, _TIDY_LINES, SECTION_LINES), max_size=8).map(
    lambda lines: "\r\n".join([*_HEAD, *lines, ""]).encode("utf-8", "surrogateescape")
)


def operate(name: str, session: Session) -> None:
    attempt(partial(OPERATIONS[name], Editor(session, lambda *_: None)))


@given(st.one_of(_NEARLY_TIDY, BODIES))
def test_in_a_tidy_section_nothing_dangles(source: bytes) -> None:
    session = parsed(source)
    for media in session.media:
        if media.is_tidy:
            change = Undangle(set(media.formats), {str(codec.payload) for codec in media.codecs if codec.mapped})
            assert all(change(line) is line for line in session.lines[media.start + 1 : media.end])


@given(_NEARLY_TIDY)
def test_one_sane_ptime_is_left(source: bytes) -> None:
    session = parsed(source)
    operate("fix_ptime", session)
    media = session.media[0]
    lines = [line for line in session.lines[media.start + 1 : media.end] if line.startswith("a=")]
    if not any(line.startswith(("a=ptime", "a=maxptime")) for line in lines):
        return
    for name in ("ptime", "maxptime"):
        found = [line.rstrip() for line in lines if attribute_of(line)[0] == name]
        assert len(found) <= 1
        assert set(found) <= {f"a={name}:{number}" for number in range(10, 1001)}


@given(BUILT, st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=3), st.sampled_from(sorted(OPERATIONS)))
def test_a_copy_is_a_session_of_its_own(source: bytes, first: list[str], then: str) -> None:
    session = parsed(source)
    for name in first:
        operate(name, session)
    before = views(session)
    copy = session.copy()
    assert (copy.lines, copy.serialize(), views(copy)) == (session.lines, session.serialize(), before)
    operate(then, copy)
    assert views(session) == before
    assert views(Session.parse(copy.serialize())) == views(copy)


@given(BUILT, st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=4))
def test_no_attribute_is_overlooked(source: bytes, names: list[str]) -> None:
    session = parsed(source)
    for name in names:
        assert session.attribute_names() >= {attribute_of(line)[0] for line in session.lines if line.startswith("a=")}
        operate(name, session)
    assert all(session.may_have_attribute(attribute_of(line)[0]) for line in session.lines if line.startswith("a="))


@given(BODIES)
def test_direction_is_the_first_that_is_written(source: bytes) -> None:
    session = parsed(source)
    for media in session.media:
        written = [line[2:].rstrip() for line in session.lines[media.start + 1 : media.end] if line.startswith("a=")]
        assert media.own_direction == next((word for word in written if word in DIRECTIONS), None)


@given(st.one_of(st.ip_addresses(v=4).map(str), st.text(alphabet="0123456789.", max_size=15), st.text(max_size=8)))
def test_private_ipv4_addresses(text: str) -> None:
    octets = text.split(".")
    private = False
    if len(octets) == 4 and all(one.isascii() and one.isdigit() and len(one) < 4 and int(one) < 256 for one in octets):
        first, second = int(octets[0]), int(octets[1])
        private = first in (0, 10, 127) or (first, second) in ((192, 168), (169, 254))
        private = private or (first == 172 and 16 <= second < 32) or (first == 100 and 64 <= second < 128)
    if ":" not in text:
        assert is_private_address(text) is private


def test_a_description_of_line_ends_alone_is_none() -> None:
    for source in (b"", b"\r\n", b"\r\n\r\n", b"\n", b"\0"):
        error = attempt(partial(Session.parse, source))
        assert isinstance(error, SdpError)
        assert error.reason == "the session description is empty"
