"""Differences line by line say the same as the exact edit scripts that they are made from."""

import pytest

from proxy.admin.difference import difference
from proxy.admin.pages import call_page
from tests.admin.conftest import Dashboard

MESSAGE = "INVITE sip:a@b SIP/2.0\r\nA: 1\r\nB: 2\r\n 3\r\nC: 4\r\n\r\nv=0\r\nc=x\r\n"


def change(part: str, index: int, before: str | None, after: str | None, step: str = "s") -> dict[str, object]:
    return {"step": step, "part": part, "index": index, "before": before, "after": after}


def test_edits_of_edits_show_the_first_and_the_last() -> None:
    lines = difference(
        MESSAGE,
        [
            change("start-line", 0, "INVITE sip:a@b SIP/2.0", "INVITE sip:c@d SIP/2.0", "target"),
            change("header", 1, "B: 2\r\n 3", "B: 5", "one"),
            change("header", 1, "B: 5", "B: 6", "two"),
            change("header", 3, None, "D: 7", "three"),
            change("header", 3, "D: 7", None, "four"),
            change("header", 0, "A: 1", None, "five"),
            change("sdp", 1, "c=x", "c=y", "six"),
        ],
    )
    assert [(line.mark, line.text, line.steps) for line in lines] == [
        ("-", "INVITE sip:a@b SIP/2.0", ("target",)),
        ("+", "INVITE sip:c@d SIP/2.0", ("target",)),
        ("-", "A: 1", ("five",)),
        ("-", "B: 2\r\n 3", ("one",)),
        ("+", "B: 6", ("one", "two")),
        (" ", "C: 4", ()),
        (" ", "", ()),
        (" ", "v=0", ()),
        ("-", "c=x", ("six",)),
        ("+", "c=y", ("six",)),
    ]


@pytest.mark.parametrize(
    "wrong", [change("header", 9, "A: 1", None), change("header", 0, "X: 1", None), change("header", 9, None, "A: 1")]
)
def test_changes_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="line"):
        difference(MESSAGE, [wrong])


def test_all_messages_of_all_calls_add_up(dashboard: Dashboard) -> None:
    seen = 0
    for row in dashboard.store.calls({}, 300, None):
        call = dashboard.store.call(row["key"])
        assert call is not None
        for message in call_page(call)["messages"]:
            assert message["problem"] == ""
            if message["lines"] is not None:
                kept = [line.text.replace("\r\n", "\n") for line in message["lines"] if line.mark != "-"]
                assert "\n".join(kept).strip() == message["text"].strip()
                seen += 1
    assert seen > 1000
