"""The kinds of values: globs, numbers, patterns and their literals, hosts."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.rewrite.names import Names, glob_test
from proxy.rewrite.nodes import nearest
from proxy.rewrite.patterns import Pattern, required_literal
from proxy.rewrite.schema import NumberTest, StatusTest
from proxy.rewrite.templates import uri_host


@pytest.mark.parametrize(
    ("glob", "text", "expected"),
    [
        ("x-*", "x-a", True),
        ("x-*", "x-", True),
        ("x-*", "y-x-a", False),
        ("*", "anything", True),
        ("*", "", False),
        ("*a", "banana", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXcYb", False),
        ("a.b", "a.b", True),
        ("a.*b", "a.xb", True),
        ("a.*b", "axb", False),
        ("x-a", "x-a", True),
        ("x-a", "x-ab", False),
    ],
)
def test_glob(glob: str, text: str, expected: bool) -> None:
    assert glob_test(glob)(text) is expected


def test_names() -> None:
    test = Names(["s", "X-*"]).test()
    assert [test(key) for key in ("subject", "x-a", "via", "")] == [True, True, False, False]
    assert not Names(["*"]).test()("via")
    assert Names(["*"], reaches_all=True).test()("via")
    assert Names(["s"]).needs == frozenset(("subject",))
    assert Names(["s", "X-*"]).needs is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", (2, 2)),
        ("2-4", (2, 4)),
        (">=2", (2, 10**9)),
        (">2", (3, 10**9)),
        ("<=2", (0, 2)),
        ("<2", (0, 1)),
        ("", None),
        ("a", None),
        ("-1", None),
        ("1-", None),
        ("1-2-3", None),
        (">", None),
        ("1.5", None),
        ("²", None),
        ("9" * 30, None),
    ],
)
def test_number(text: str, expected: tuple[int, int] | None) -> None:
    assert NumberTest().range_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200", (200, 200)),
        ("4xx", (400, 499)),
        ("6XX", (600, 699)),
        ("7xx", None),
        ("0xx", None),
        ("99", None),
        ("700", None),
        ("200-699", (200, 699)),
        ("200-700", None),
        (">=400", (400, 10**9)),
        (">=700", None),
        ("<100", None),
        ("<200", (0, 199)),
    ],
)
def test_status(text: str, expected: tuple[int, int] | None) -> None:
    assert StatusTest().range_of(text) == expected


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("^<sip:(\\+1\\d+)@", "<sip:"),
        ("abc?def", "def"),
        ("ab+c", "ab"),
        ("a\\.b\\.c", "a.b.c"),
        ("[abc]def[[:alpha:]]xy", "def"),
        ("[]x]abc[^]y]", "abc"),
        ("foo|bar", ""),
        ("(foo|bar)xyz", ""),
        ("(?i)foo", ""),
        ("(?P<a>foo)(?:bar)xy", "xy"),
        ("x{2}yz", "yz"),
        ("\\x41bcd", ""),
        ("\\Qa.b\\E", ""),
        ("a\\dbcd\\sef", "bcd"),
        ("é", ""),
        ("café", "café"),
        ("^$", ""),
        ("a", ""),
    ],
)
def test_required_literal(pattern: str, literal: str) -> None:
    assert required_literal(pattern) == literal


PATTERNS = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "ab",
            "é",
            ".",
            "*",
            "+",
            "?",
            "{2}",
            "{1,}",
            "[ab]",
            "[^a]",
            "[]a]",
            "(",
            ")",
            "(?:",
            "|",
            "^",
            "$",
            "\\.",
            "\\\\",
            "\\d",
            "\\b",
            "\\x61",
            "(?i)",
            "(?P<n>",
            "{",
            "}",
            "]",
            "\\[",
            "[[:digit:]a]",
        ]
    ),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, st.text("abé.{}]2\\A", max_size=12))
def test_literal_never_hides_a_match(pattern: str, text: str) -> None:
    try:
        compiled = Pattern(pattern)
    except re2.error:
        return
    assert compiled.found_in(text) == (compiled.compiled.search(text.encode()) is not None)


@settings(deadline=None)
@given(st.text(max_size=20) | st.text("\udc80\udcff\udcc3é", max_size=9))
def test_replace_keeps_every_byte_that_does_not_match(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    replaced = Pattern("(?s)(.)").replace(text, [1], every=True)
    assert (replaced or "").encode("utf-8", "surrogateescape") == data
    around = Pattern("z*").replace(text, [0], every=True)
    assert (around or "").encode("utf-8", "surrogateescape") == data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com", "example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("[::1]", "[::1]"),
        ("a b", None),
        ("a>", None),
        ("a:5060", None),
        ("10.0.0.1:5060", None),
        ("[a", None),
        ("x::1", None),
        ("", None),
        (None, None),
        ("é", None),
        ("a;b", None),
    ],
)
def test_uri_host(text: str | None, expected: str | None) -> None:
    assert uri_host(text) == expected


def test_nearest() -> None:
    assert nearest("remov", ["remove", "rename"]) == "remove"
    assert nearest("drop_dangling", ["drop-dangling"]) == "drop-dangling"
    assert nearest("zzz", ["remove"]) == ""
    assert nearest("remove" * 100, ["remove"]) == ""
