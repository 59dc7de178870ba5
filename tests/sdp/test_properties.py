"""What holds for every session description."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.sdp import WEBRTC_ATTRIBUTES, Editor, SdpError, Session, check_answer
from tests.sdp.samples import Edit, mapped, replay
from tests.sdp.samples import session as described_by
from tests.sdp.strategies import BODIES, BUILT

Operation = Callable[[Editor], None]

OPERATIONS: dict[str, Operation] = {
    "keep_codecs": lambda editor: editor.keep_codecs(["PCMU", "PCMA", "telephone-event"]),
    "keep_wide_codecs": lambda editor: editor.keep_codecs(
        ["telephone-event", "CN", "opus", "red", "rtx", "G722", "PCMU"]
    ),
    "deny_codecs": lambda editor: editor.deny_codecs(["opus", "PCMA/8000"]),
    "order_codecs": lambda editor: editor.order_codecs(["telephone-event", "opus", "PCMA"]),
    "add_static_rtpmaps": lambda editor: editor.add_static_rtpmaps(),
    "drop_dangling": lambda editor: editor.drop_dangling(),
    "fix_ptime": lambda editor: editor.fix_ptime(),
    "fix_ptime_narrow": lambda editor: editor.fix_ptime(30, (30,)),
    "keep_crypto": lambda editor: editor.keep_crypto(["AES_CM_128_HMAC_SHA1_80"]),
    "keep_cryptos": lambda editor: editor.keep_crypto(["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"]),
    "drop_attributes": lambda editor: editor.drop_attributes(WEBRTC_ATTRIBUTES),
    "keep_attributes": lambda editor: editor.keep_attributes(["rtpmap", "fmtp", "*ptime"]),
    "set_attribute": lambda editor: editor.set_attribute("ptime", "30"),
    "set_direction": lambda editor: editor.set_direction("recvonly"),
    "drop_bandwidth": lambda editor: editor.drop_bandwidth(),
    "drop_bandwidth_as": lambda editor: editor.drop_bandwidth(["AS"]),
    "set_origin_address": lambda editor: editor.set_origin_address("198.51.100.1"),
    "set_origin": lambda editor: editor.set_origin("-", "2001:db8::2"),
    "set_connection_address": lambda editor: editor.set_connection_address("198.51.100.1"),
    "set_session_name": lambda editor: editor.set_session_name("x"),
    "add_required_lines": lambda editor: editor.add_required_lines(),
    "keep_media": lambda editor: editor.keep_media(["audio"]),
}


def attempt(action: Callable[[], object]) -> SdpError | None:
    """What SdpError `action` raises, if any; no other exception is expected of anything here."""
    try:
        action()
    except SdpError as error:
        return error
    return None


def is_plain(reason: str) -> bool:
    """Whether a reason is one line of printable ASCII."""
    return bool(reason) and all(" " <= char <= "~" for char in reason)


def parsed(source: bytes) -> Session:
    assume(attempt(lambda: Session.parse(source)) is None)
    return Session.parse(source)


def views(session: Session) -> list[object]:
    return [
        (media.index, media.start, media.end, media.line, media.formats, media.codecs, media.direction, media.port)
        for media in session.media
    ]


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda rest: b"v=0\r\n" + rest), BODIES))
def test_goes_out_as_it_came_in_or_is_an_sdp_error(source: bytes) -> None:
    error = attempt(lambda: Session.parse(source))
    if error is not None:
        assert is_plain(error.reason)
        return
    session = Session.parse(source)
    assert session.serialize() == source
    plain = "".join([line + "\r\n" for line in session.lines]).encode("utf-8", "surrogateescape")
    assert session.is_canonical == (plain == source)
    assert Session.parse(plain).lines == session.lines


@given(BODIES)
def test_every_view_can_be_read(source: bytes) -> None:
    session = parsed(source)
    for media in session.media:
        assert session.lines[media.start].startswith("m=")
        assert media.direction in ("sendrecv", "sendonly", "recvonly", "inactive")
        assert media.ptime is None or media.ptime >= 0
        assert len(media.codecs) <= len(media.formats)
        assert all(crypto.plain_key_params for crypto in media.crypto)
    assert [media.start for media in session.media] == [i for i, line in enumerate(session.lines) if line[:2] == "m="]
    for value in (session.origin_address, session.connection_address, session.session_name, session.origin_version):
        assert value is None or "\r" not in value


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=30)  # of each of the many operations
@given(source=BODIES)
def test_an_operation_is_explained_sound_and_done_once(name: str, source: bytes) -> None:
    operation = OPERATIONS[name]
    session = parsed(source)
    before = list(session.lines)
    edits: list[Edit] = []
    editor = Editor(session, lambda index, old, new: edits.append((index, old, new)))
    error = attempt(lambda: operation(editor))
    if error is not None:
        assert is_plain(error.reason)
        assert session.lines == before
        assert edits == []
        assert session.serialize() == source
        return
    assert all(old != new for _, old, new in edits)
    assert replay(before, edits) == session.lines
    assert editor.edited == bool(edits)
    if not edits:
        assert session.serialize() == source
        return
    again = Session.parse(session.serialize())
    assert again.is_canonical
    assert again.lines == session.lines
    assert views(again) == views(session)
    assert all(media.formats or not media.port for media in again.media)
    once = list(session.lines)
    operation(editor)
    assert session.lines == once


@given(BUILT, st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=6))
def test_operations_in_any_order(source: bytes, names: list[str]) -> None:
    session = parsed(source)
    before = list(session.lines)
    edits: list[Edit] = []
    editor = Editor(session, lambda index, old, new: edits.append((index, old, new)))
    for name in names:
        attempt(partial(OPERATIONS[name], editor))
    assert replay(before, edits) == session.lines
    again = Session.parse(session.serialize())
    assert again.lines == session.lines
    assert views(again) == views(session)


@given(BODIES)
def test_kept_codecs_are_the_named_ones(source: bytes) -> None:
    session = parsed(source)
    names = ["PCMA", "opus", "telephone-event"]
    if attempt(lambda: Editor(session, lambda *_: None).keep_codecs(names)) is not None:
        return
    live = [media for media in session.media if media.kind == "audio" and media.port]
    assert live
    for media in live:
        found = [codec.name.lower() for codec in media.codecs]
        order = [name.lower() for name in names]
        assert found == sorted(found, key=order.index)
        assert set(found) & {"pcma", "opus"}
        assert media.formats == [str(codec.payload) for codec in media.codecs]


def collect(session: Session, names: list[str]) -> Session:
    """`session` after those operations that it bears."""
    for name in names:
        attempt(partial(OPERATIONS[name], Editor(session, lambda *_: None)))
    return session


@given(
    BODIES,
    st.lists(
        st.sampled_from(["keep_codecs", "deny_codecs", "order_codecs", "keep_media", "add_static_rtpmaps"]), max_size=3
    ),
    st.lists(
        st.sampled_from(["keep_codecs", "deny_codecs", "order_codecs", "drop_dangling", "set_direction"]), max_size=3
    ),
)
def test_a_mapped_answer_fits_the_original_offer(source: bytes, on_the_way: list[str], at_the_peer: list[str]) -> None:
    original = parsed(source)
    sent = collect(original.copy(), on_the_way)
    answer = collect(sent.copy(), at_the_peer)
    check_mapped(answer, sent, original)


@given(BODIES, BODIES, BODIES)
def test_a_mapped_answer_of_any_kind_fits_or_is_refused(answer: bytes, sent: bytes, original: bytes) -> None:
    check_mapped(parsed(answer), parsed(sent), parsed(original))


@st.composite
def renumbered(draw: st.DrawFn) -> tuple[Session, Session]:
    """An offer, and an answer with some of its codecs under other payload numbers, in another order."""
    names = draw(
        st.lists(st.sampled_from(["PCMU/8000", "opus/48000/2", "G722/8000", "speex/16000"]), min_size=1, unique=True)
    )
    events = draw(st.lists(st.sampled_from(["telephone-event/8000", "telephone-event/48000"]), unique=True))
    answered = [*draw(st.lists(st.sampled_from(names), min_size=1, unique=True)), *events]

    def described(codecs: list[str]) -> Session:
        numbers = draw(st.lists(st.integers(96, 101), min_size=len(codecs), max_size=len(codecs), unique=True))
        maps = [f"a=rtpmap:{number} {codec}" for number, codec in zip(numbers, codecs, strict=True)]
        line = f"m=audio 9 RTP/AVP {' '.join(map(str, numbers))}"
        return described_by("\n".join(["v=0", line, *draw(st.permutations(maps))]))

    return described([*names, *events]), described(draw(st.permutations(answered)))


@given(renumbered())
def test_a_mapped_answer_has_the_numbers_of_the_offer(pair: tuple[Session, Session]) -> None:
    offer, answer = pair
    result, _ = mapped(answer, answer, offer)
    assert [codec.key for codec in result.media[0].codecs] == [codec.key for codec in answer.media[0].codecs]
    assert all(codec in offer.media[0].codecs for codec in result.media[0].codecs)
    assert len(result.lines) == len(answer.lines)


def check_mapped(answer: Session, sent: Session, original: Session) -> None:
    error = attempt(lambda: mapped(answer, sent, original))
    if error is not None:
        assert is_plain(error.reason)
        return
    result, edits = mapped(answer, sent, original)
    assert check_answer(result, original) == []
    assert [media.kind for media in result.media] == [media.kind for media in original.media]
    assert Session.parse(result.serialize()).lines == result.lines
    if not edits:
        assert result.serialize() == answer.serialize()
    assert mapped(result, original, original)[1] == []
