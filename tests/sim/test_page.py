"""The report of a run: what it says, and the page with plots."""

from xml.etree import ElementTree

import pytest

from proxy.sim.page import make_page
from proxy.sim.report import CallResult, Report


def result(index: int, outcome: str = "200 OK", kind: str = "answered", setup_ms: float = 20.0) -> CallResult:
    ringing = setup_ms / 2
    return CallResult(
        index, f"CA{index}", f"id-{index}", "", outcome, kind, 200, setup_ms, ringing, "caller", index / 10
    )


def report_of(*results: CallResult, wanted: int = 0, late_s: float = 0.0) -> Report:
    report = Report(wanted=wanted or len(results), wanted_rate=10.0)
    for one in results:
        report.placed(late_s)
        report.add(one)
    report.close(len(results) / 10, (len(results) - 1) / 10, {"sent": 3, "received": 4})
    return report


def said(report: Report) -> str:
    return " ".join(text for text, _ in report.verdicts())


def test_a_good_run_says_so() -> None:
    report = report_of(*map(result, range(50)))
    assert report.verdicts() == [("Every call was answered, or cancelled as asked.", True)]
    assert (report.rate_kept, report.interrupted) == (True, False)


def test_a_rate_that_was_not_kept_is_told() -> None:
    report = report_of(*map(result, range(50)), late_s=0.5)
    assert not report.rate_kept
    assert "10 calls a second were asked for" in said(report)
    assert "up to 500 ms late" in said(report)


def test_few_calls_and_waiting_calls_say_nothing_of_the_rate() -> None:
    assert report_of(*map(result, range(10)), late_s=0.5).rate_kept
    waiting = report_of(*map(result, range(50)), late_s=0.5)
    waiting.delayed = 1
    assert waiting.rate_kept


def test_an_interrupted_run_and_failures_are_told() -> None:
    report = report_of(result(0), result(1, "400 Bad Request", "failed"), wanted=9)
    assert "Stopped after 2 of 9 calls." in said(report)
    assert "1 of 2 calls failed." in said(report)
    assert dict(report.failures) == {"400 Bad Request": 1}


def test_silence_is_told() -> None:
    report = report_of(result(0, "timeout", "failed", 0.0))
    report.traffic = {"sent": 7, "received": 0}
    assert "Nothing came back at all" in said(report)


@pytest.mark.parametrize(
    "results",
    [
        [],
        [result(0)],
        [result(0, "timeout", "failed", 0.0)],
        [result(n, setup_ms=0.01 * 3**n) for n in range(14)],
        [result(n, *(("503 <no> & none", "failed", 0.0) if n % 3 else ())) for n in range(4000)],
    ],
    ids=["none", "one", "none answered", "wide apart", "many"],
)
def test_the_page_is_well_formed_whatever_happened(results: list[CallResult]) -> None:
    page = make_page(report_of(*results, wanted=4001), "sip:<host>&x")
    assert "<host>" not in page
    assert "<no>" not in page
    for drawing in page.split("<svg")[1:]:
        picture = ElementTree.fromstring("<svg" + drawing.partition("</svg>")[0] + "</svg>")  # noqa: S314 - our own
        for shape in picture.iter("rect"):
            assert float(shape.attrib["height"]) > 0
        for line in picture.iter("polyline"):
            points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
            assert all(0 <= x <= 720 and 0 <= y <= 200 for x, y in points)


def test_columns_have_the_counts_of_their_time() -> None:
    results = [result(n, *(("486 Busy Here", "failed", 0.0) if n < 5 else ())) for n in range(20)]
    page = make_page(report_of(*results), "sip:127.0.0.1")
    heights = [float(part.partition('"')[0]) for part in page.split("<rect")[1:] for part in part.split('height="')[1:]]
    # Two seconds of ten calls each: five failed and five answered in the first, ten answered in the second.
    assert [round(height / heights[-1], 2) for height in heights] == [0.5, 0.5, 1.0]
