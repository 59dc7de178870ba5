"""What a draft knows of its header fields and its body without looking is true."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.rewrite.draft import Draft
from proxy.sdp.session import Session
from proxy.sip.message import Header, Request, header

_NAMES = ("X-A", "X-B", "Content-Type", "Via")
_KEYS = ("x-a", "x-b", "content-type", "via")
_TYPES = ("application/sdp", "Application/SDP; charset=utf-8", "text/plain")
_SDP = b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n"
_HEADERS = st.builds(header, st.sampled_from(_NAMES), st.sampled_from(_TYPES))
_EDITS = st.tuples(
    st.sampled_from("append insert insert_all remove replace remove_all remove_owned body".split()), _HEADERS
)


def edit(draft: Draft, what: str, item: Header) -> None:
    if what == "append":
        draft.append(item)
    elif what == "insert":
        draft.insert(0, item)
    elif what == "insert_all":
        draft.insert_all(0, [item, item])
    elif what == "remove" and draft.headers:
        draft.remove(0)
    elif what == "replace" and draft.headers:
        draft.replace(len(draft.headers) - 1, item)
    elif what == "remove_all":
        draft.remove_all(item.key)
    elif what == "remove_owned":
        draft.remove_owned({item.key: "builtin:test"})
    elif what == "body":
        draft.set_body(b"" if draft.body else _SDP)


@given(st.lists(_HEADERS, max_size=5), st.sampled_from([b"", _SDP, b"text"]), st.lists(_EDITS, max_size=6))
def test_what_is_known_of_the_headers(
    given_headers: list[Header], body: bytes, edits: list[tuple[str, Header]]
) -> None:
    draft = Draft(Request("INVITE", "sip:h", given_headers, body))
    for what, item in [("", header("X-A", "1")), *edits]:
        edit(draft, what, item)
        keys = [one.key for one in draft.headers]
        for key in _KEYS:
            places = [at for at, found in enumerate(keys) if found == key]
            assert draft.positions(key) == places
            assert draft.find(key) is (draft.headers[places[0]] if places else None)
            assert draft.may_have((key,)) or not places
        assert draft.may_repeat or len(set(keys)) == len(keys)
        assert draft.has_sdp() == Draft(Request("INVITE", "sip:h", draft.headers, draft.body)).has_sdp()


def test_the_untouched_session_is_that_of_the_body() -> None:
    draft = Draft(Request("INVITE", "sip:h", [header("Content-Type", "application/sdp")], _SDP))
    assert draft.untouched_session(_SDP) is None
    assert draft.session is not None
    whole = draft.untouched_session(_SDP)
    assert draft.sdp is not None
    draft.sdp.set_origin_address("198.51.100.1")
    draft.sdp.keep_codecs(["PCMA"])
    edited = draft.untouched_session(_SDP)
    for session in (whole, edited):
        assert session is not None
        assert session.lines == Session.parse(_SDP).lines
        assert session.serialize() == _SDP
        assert [codec.name for codec in session.media[0].codecs] == ["PCMU", "PCMA"]
    assert draft.untouched_session(bytes(bytearray(_SDP))) is None
    draft.set_body(b"")
    assert draft.untouched_session(_SDP) is None
