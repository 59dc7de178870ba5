"""What holds for any input: it parses or raises the one protocol error, and nothing is lost, added or injected."""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from proxy.sip.errors import SipError
from proxy.sip.headers import (
    NameAddr,
    Via,
    is_token,
    parse_cseq,
    parse_name_addr,
    parse_via,
    quote_display,
    split_first,
    split_values,
)
from proxy.sip.message import Header, Message, Request, Response, canonical_key, header, read_header
from proxy.sip.parser import (
    MalformedMessage,
    StreamFramer,
    check_request,
    check_response,
    content_length,
    parse_message,
)
from proxy.sip.respond import make_response
from proxy.sip.uri import Params, Uri, parse_params, parse_uri, render_params, unescape
from tests.sip.samples import TWILIO_BYE
from tests.sip.strategies import (
    any_text,
    damaged,
    headers,
    line_text,
    messages,
    name_addrs,
    params,
    quoted,
    tokens,
    uris,
    vias,
)

PING, PONG = StreamFramer.PING, StreamFramer.PONG


# Messages


@given(messages())
def test_message_is_kept_to_the_byte(data: bytes) -> None:
    found = parse_message(data)
    assert found.serialize() == data
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [found.start_line, *[item.line for item in found.headers]]
    assert "\r\n".join(lines).encode("utf-8", "surrogateescape") == head
    for item in found.headers:
        assert item.line.startswith(item.name)
        assert not {"\r", "\n"} & set(item.value)
        assert item.value in found.get_all(item.key)
    assert found.serialize() == data
    assert parse_message(head.replace(b"\r\n", b"\n") + b"\n\n" + body).serialize() == data


@given(st.lists(headers, max_size=8), st.binary(max_size=20))
def test_built_message_reads_back(fields: list[Header], body: bytes) -> None:
    built = Request("MESSAGE", "sip:h", [*fields, header("Content-Length", str(len(body)))], body)
    found = parse_message(built.serialize())
    assert [(item.name, item.key, item.value, item.line) for item in found.headers] == [
        (item.name, item.key, item.value, item.line) for item in built.headers
    ]
    assert found.body == body
    for key in {item.key for item in built.headers}:
        assert found.get_all(key) == built.get_all(key)


@given(damaged() | st.binary(max_size=60))
@example(b"A\rB\n")
@example(b"\r\n\r\n\n\r")
@example(b"\nA\n\n\r\n\r\n")
def test_any_bytes_parse_or_raise_the_one_error(data: bytes) -> None:
    try:
        found = parse_message(data)
    except MalformedMessage as error:
        if error.partial is not None:
            answer(error.partial, error.status)
        return
    kept = found.serialize()
    assert parse_message(kept).serialize() == kept
    if not found.holds_nul:
        assert b"\x00" not in kept[: len(kept) - len(found.body)]
    check(found)


def check(found: Request | Response) -> None:
    """The checks raise nothing else, and what passes them has every view without an error."""
    try:
        if isinstance(found, Response):
            check_response(found)
        else:
            answer(found, 400)
            check_request(found)
    except SipError:
        return
    assert not found.holds_nul
    _ = found.via, found.cseq.number, found.call_id, found.from_, found.to, found.content_type
    if isinstance(found, Response):
        return
    _ = found.request_uri, found.from_.uri, found.to.uri
    if found.contact is not None:
        _ = found.contact.uri
    # A leg of ours writes From and To anew.
    for address in (found.from_, found.to):
        assert read_header(header("To", str(address)).line).value == str(address)
        assert parse_name_addr(str(address)).tag == address.tag


def answer(request: Request, status: int) -> None:
    """Any request can be answered, however broken, and the response parses."""
    sent = make_response(request, status, remote=("192.0.2.1", 5060), to_tag="t4g").serialize()
    found = parse_message(sent)
    assert isinstance(found, Response)
    assert found.status == status
    assert found.serialize() == sent
    assert found.get_all("content-length") == ["0"]


# Streams


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """A stream of messages, pings and damage, and where it is cut."""
    part = messages() | damaged() | st.sampled_from([PING, PONG, TWILIO_BYE, b"\r", b"\n"])
    data = b"".join(draw(st.lists(part, max_size=4)))
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=6))
    return data, sorted(cuts)


def run(chunks: list[bytes]) -> tuple[list[bytes], str, int]:
    """What a framer makes of a stream: the messages, the error, and how much is left; a ping in halves is a ping."""
    framer = StreamFramer()
    out: list[bytes] = []
    for chunk in [*chunks, b""]:
        try:
            out.extend(framer.feed(chunk))
        except MalformedMessage as error:
            assert framer.error is error  # noqa: PT017
            break
    merged: list[bytes] = []
    for message in out:
        if message == PING and merged and merged[-1] == PONG:
            merged.pop()
        merged.append(message)
    if framer.error is None:
        return merged, "", framer.pending_bytes
    return merged, f"{framer.error} for {framer.error.partial}", 0


@given(streams())
@example((b"\r\n\r\n\r\n", [2, 5]))
@example((TWILIO_BYE + b"\r\n\r", [len(TWILIO_BYE) + 1]))
def test_stream_reads_the_same_in_any_chunks(stream: tuple[bytes, list[int]]) -> None:
    data, cuts = stream
    bounds = [0, *cuts, len(data)]
    whole = run([data])
    assert run([data[start:end] for start, end in pairwise(bounds)]) == whole
    assert run([bytes((byte,)) for byte in data]) == whole


@given(st.lists(messages(), max_size=4))
def test_stream_of_messages_gives_the_messages(sent: list[bytes]) -> None:
    assert run([b"".join(sent)]) == (sent, "", 0)


@given(damaged())
def test_framer_and_parser_agree_on_the_length(data: bytes) -> None:
    head = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    body = b"x" * 70_000
    try:
        found = parse_message(head + body, max_headers=1000)
    except MalformedMessage:
        return
    if found.serialize().startswith(head):
        length = found.get("content-length")
        assert content_length(head) == (0 if length is None else int(length)) == (len(found.body) if length else 0)


# Nothing gets out of its line


@given(tokens | any_text, any_text)
@example("X-A", "a\r\nVia: x")
def test_header_lets_no_line_break_through(name: str, value: str) -> None:
    assume(canonical_key(name) != "content-length")
    try:
        item = header(name, value)
    except ValueError:
        return
    assert not {"\r", "\n", "\x00"} & set(item.line)
    data = f"OPTIONS sip:h SIP/2.0\r\n{item.line}\r\nX-Last: 1\r\n\r\n".encode("utf-8", "surrogateescape")
    one, last = parse_message(data).headers
    assert (one.name, one.key, one.value) == (item.name, item.key, value.strip(" \t"))
    assert last.value == "1"


@given(any_text, any_text, any_text)
def test_start_lines_let_no_line_break_through(method: str, uri: str, reason: str) -> None:
    for build in (lambda: Request(method, uri, []), lambda: Response(200, reason, [])):
        try:
            built = build()
        except ValueError:
            continue
        assert not {"\r", "\n", "\x00"} & set(built.start_line)
        assert parse_message(built.serialize()).start_line == built.start_line


@given(any_text, any_text)
def test_response_lets_no_line_break_through(tag: str, reason: str) -> None:
    asked = parse_message(TWILIO_BYE.replace(b";tag=045b497c", b""))
    assert isinstance(asked, Request)
    try:
        response = make_response(asked, 400, reason, to_tag=tag)
    except ValueError:
        return
    found = parse_message(response.serialize())
    assert len(found.headers) == len(response.headers)
    assert found.to.tag == (tag or None)


@given(line_text)
def test_display_name_stays_inside_its_quotes(text: str) -> None:
    address = NameAddr(text, "sip:a@h", (("tag", "x"),))
    found = parse_name_addr(str(address))
    assert (found.uri_text, found.params) == ("sip:a@h", (("tag", "x"),))
    assert found.display == quote_display(text).strip()


# Texts


@given(uris)
def test_uri_reads_back(uri: Uri) -> None:
    found = parse_uri(str(uri))
    assert (found.scheme, found.user, found.password, found.host) == (uri.scheme, uri.user, uri.password, uri.host)
    assert (found.port, found.params, found.headers) == (uri.port, uri.params, uri.headers)
    assert str(found) == str(uri) == str(found.replace())
    kept = found.without_duplicate_params()
    names = [name.lower() for name, _ in kept.params]
    assert len(names) == len(set(names)) == len({name.lower() for name, _ in uri.params})


@given(name_addrs)
def test_address_reads_back(address: NameAddr) -> None:
    text = str(address)
    found = parse_name_addr(text)
    assert (found.display, found.uri_text, found.params) == (address.display, address.uri_text, address.params)
    assert str(found) == text
    assert split_values(f"{text}, {text}") == [text, text]


@given(vias)
def test_via_reads_back(via: Via) -> None:
    text = str(via)
    found = parse_via(text)
    assert (found.transport, found.host, found.port, found.params) == (via.transport, via.host, via.port, via.params)
    assert str(found) == text
    assert split_values(f"{text},{text}") == [text, text]


@given(params(tokens | quoted))
def test_params_read_back(pairs: Params) -> None:
    assert parse_params(render_params(pairs)[1:]) == pairs


@given(st.lists(quoted | tokens | uris.map(lambda uri: f"<{uri}>"), min_size=1, max_size=4))
def test_list_reads_back(values: list[str]) -> None:
    text = " , ".join(values)
    assert split_values(text) == [value.strip() for value in values]
    first, rest = split_first(text)
    assert first == values[0].strip()
    assert split_values(rest) == [value.strip() for value in values[1:] or [""]]


@given(any_text)
def test_list_is_cut_at_the_same_commas_character_by_character(text: str) -> None:
    """Against the plain reading of the grammar, one character at a time."""
    cuts: list[int] = []
    quoted = bracketed = escaped = False
    for at, ch in enumerate(text):
        if quoted:
            quoted = escaped or ch != '"'
            escaped = not escaped and ch == "\\"
        elif bracketed:
            bracketed = ch != ">"
        elif ch in '"<':
            quoted, bracketed = ch == '"', ch == "<"
        elif ch == ",":
            cuts.append(at)
    bounds = [-1, *cuts, len(text)]
    expected = [text[start + 1 : end].strip() for start, end in pairwise(bounds)]
    if "," not in text:
        expected = [text]
    try:
        assert split_values(text) == expected
    except SipError:
        assert quoted


@given(any_text)
def test_unescape_undoes_escapes(text: str) -> None:
    escaped = "".join([f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape")])
    assert unescape(escaped) == text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    if "%" not in text:
        assert unescape(text) == text


@given(any_text)
def test_token_is_what_the_grammar_says(text: str) -> None:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~"
    assert is_token(text) == (bool(text) and all(ch in letters for ch in text))


@pytest.mark.parametrize("parse", [parse_uri, parse_name_addr, parse_via, parse_cseq, parse_params, split_values])
@given(text=any_text | name_addrs.map(str) | vias.map(str))
def test_any_text_parses_or_raises_the_one_error(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        found = parse(text)
    except SipError as error:
        assert error.status in (400, 505)  # noqa: PT017
        return
    if isinstance(found, NameAddr | Via):
        assert str(parse(str(found))) == str(found)


@given(
    messages(), st.lists(st.sampled_from(["via", "from_", "to", "cseq", "call_id", "contact", "headers"]), max_size=3)
)
def test_a_condensed_message_is_the_same(data: bytes, read_before: list[str]) -> None:
    def reading(message: Message, name: str) -> str:
        try:
            return str(getattr(message, name))
        except SipError as error:
            return repr(error.reason)

    try:
        message, other = parse_message(data), parse_message(data)
    except (MalformedMessage, SipError):
        return
    for name in read_before:
        reading(message, name)
    message.condense()
    assert message.serialize() == other.serialize()
    for name in ("via", "from_", "to", "cseq", "call_id", "contact", "content_type"):
        assert reading(message, name) == reading(other, name)
    assert [(item.key, item.line) for item in message.headers] == [(item.key, item.line) for item in other.headers]
    assert (message.keys(), message.repeated()) == (other.keys(), other.repeated())
