"""What is read in its ordinary form by a shorter way reads just as it does by the long one."""

from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.sip.errors import SipError
from proxy.sip.headers import parse_cseq, parse_name_addr, parse_via
from proxy.sip.message import Request, read_header, read_value
from proxy.sip.parser import parse_message
from proxy.sip.uri import Params, Uri, parse_params, parse_uri, split_host_port

# Short texts of few characters: most of them are near what each reader takes for ordinary, on one side or the other.
_NEAR = st.text(alphabet='a0+.-_:;=@?/%[]<>" \t\x00\x7f\xa0é٣\udcff', max_size=12)
_USERS = st.sampled_from(["+15550100001", "+", "trunkline", "a.b", "é", "a:b", "a;b=c", ""])
_HOSTS = st.sampled_from(
    ["198.51.100.1", "sip-1.example.net", "h_1", "[2001:db8::1]", "h:5060", "h:65536", "h:05061", ""]
)
_TAILS = st.sampled_from(["", ";lr", ";transport=tls", ";a=b=c", ";=x", ";a;b", ";", "?x=y", ";a=?", ";é=٣", ";a=\x7f"])
_ADDRESSES = st.one_of(_NEAR, st.tuples(_USERS, _HOSTS, _TAILS).map(lambda parts: f"{parts[0]}@{parts[1]}{parts[2]}"))


def outcome(read: Callable[[], object]) -> object:
    """What a reader returns, or the status and the reason that it raises."""
    try:
        return read()
    except SipError as error:
        return error.status, error.reason


def parts(uri: Uri) -> tuple[object, ...]:
    return uri.scheme, uri.user, uri.password, uri.host, uri.port, uri.params, uri.headers, uri.opaque


@given(_ADDRESSES)
def test_uri(rest: str) -> None:
    # In capitals the scheme is no ordinary one.
    assert outcome(lambda: parts(parse_uri(f"sip:{rest}"))) == outcome(lambda: parts(parse_uri(f"SIP:{rest}")))


@given(st.one_of(_NEAR, _HOSTS).filter(lambda text: not text.startswith("[")))
def test_host_and_port(text: str) -> None:
    assert outcome(lambda: split_host_port(text)) == outcome(lambda: split_host_port(f" {text}"))


@given(st.one_of(_NEAR, st.sampled_from(["1_uac", 'a"b', "a;b", " a ", ""])))
def test_tag(text: str) -> None:
    plain = outcome(lambda: parse_name_addr(f"<sip:a@h>;tag={text}").params)
    assert plain == outcome(lambda: parse_name_addr(f"<sip:a@h> ;tag={text}").params)
    assert outcome(lambda: parse_name_addr(f"<sip:a@h>;tag={text}").tag) == outcome(
        lambda: parse_name_addr(f"<sip:a@h> ;tag={text}").tag
    )


@given(st.text(alphabet="0129 +٣", max_size=12), st.sampled_from(["INVITE", "BYE", "ACK", "INFO", "I-1", "", " "]))
def test_cseq(number: str, method: str) -> None:
    plain = outcome(lambda: str(parse_cseq(f"{number} {method}")))
    assert plain == outcome(lambda: str(parse_cseq(f"{number}  {method}")))


@given(_NEAR)
def test_via(rest: str) -> None:
    def read(start: str) -> object:
        via = parse_via(f"{start} {rest}")
        return via.transport, via.host, via.port, via.params, via.branch

    assert outcome(lambda: read("SIP/2.0/UDP")) == outcome(lambda: read("SIP/2.0/udp"))


@given(st.text(alphabet="aB=; \t0", max_size=12))
@example("")
@example(" ")
@example("=")
@example("a;;")
def test_params(text: str) -> None:
    def read() -> Params:
        pieces = text.split(";") if text else []
        pairs = [
            (name.strip(), value.strip() if equals else None)
            for name, equals, value in (piece.partition("=") for piece in pieces)
        ]
        if pairs and pairs[-1] == ("", None):
            pairs.pop()
        if any(not name for name, _ in pairs):
            raise SipError(400, "Empty parameter name")
        return tuple(pairs)

    assert outcome(lambda: parse_params(text)) == outcome(read)


@given(st.text(alphabet='aé:"; \t\r\n\x0b\xa0', max_size=12).map(lambda text: text.replace("\n", "\r\n ")))
def test_value(text: str) -> None:
    value = text.partition(":")[2].strip(" \t\r\n")
    assert read_value(text) == " ".join([part.strip(" \t") for part in value.split("\r\n")])


@given(st.lists(st.sampled_from(["Via", "v", "VIA", "To", "t", "X-A", "x-a", "X A", ""]), min_size=1, max_size=8))
def test_index_of_lines(names: list[str]) -> None:
    lines = [f"{name}: {number}" if name else ":" for number, name in enumerate(names)]
    parsed = parse_message("\r\n".join(["OPTIONS sip:h SIP/2.0", *lines, "", ""]).encode())
    built = Request("OPTIONS", "sip:h", [read_header(line) for line in lines])
    assert [(item.key, item.line) for item in parsed.headers] == [(item.key, item.line) for item in built.headers]
    assert parsed.keys() == built.keys()
    assert parsed.repeated() == built.repeated()
    for key in {item.key for item in built.headers} - {""}:
        assert parsed.get_all(key) == built.get_all(key) == [item.value for item in built.headers if item.key == key]
