"""Differences, changes and experiments on made-up attempts whose truth is known."""

from __future__ import annotations

import random

import pytest

from proxy.diagnosis.changes import changes
from proxy.diagnosis.differences import differences, first_attempts
from proxy.diagnosis.experiments import experiments
from proxy.diagnosis.facts import AttemptFacts
from proxy.diagnosis.report import diagnose, report_lines

NOON = 1_795_435_200.0
HEADERS = ("header:diversion", "header:privacy", "header:x-tenant", "codec:opus", "form:folded")


def attempt(source: random.Random, at: int, failed: bool, *shape: str, **rest: object) -> AttemptFacts:
    """A first attempt."""
    fields: dict[str, object] = {
        "outcome": "status" if failed else "answered",
        "status": 400 if failed else 200,
        "reason": "Bad Request" if failed else "OK",
        "cause": "refused-syntax" if failed else "answered",
        "target": "openai",
        "address": f"tls:203.0.113.{source.randrange(21, 24)}:5061",
        "rules": "twilio-openai",
        "rules_version": "1",
        "source": f"192.0.2.{source.randrange(10, 14)}",
        "user_agent": "Twilio Gateway",
        "invite_bytes": source.randrange(900, 1300),
        "connection_age_s": source.uniform(0, 900),
        "call_outcome": "answered",
        "shape": ("header:from", *shape),
        "answer": ("header:contact", "header:content-type"),
    }
    fields.update(rest)
    return AttemptFacts(f"call{at}", NOON + 10.0 * at, 1, 0, **fields)  # type: ignore[arg-type]


def some(source: random.Random) -> tuple[str, ...]:
    return tuple([name for name in HEADERS if source.random() < 0.4])


@pytest.mark.parametrize("seed", range(20))
def test_chance_alone_is_no_difference(seed: int) -> None:
    source = random.Random(seed)
    share = source.choice((0.02, 0.1, 0.3, 0.5))
    facts = [attempt(source, at, source.random() < share, *some(source)) for at in range(source.randrange(100, 600))]
    assert differences(facts) == []
    assert changes(facts) == []


def test_a_header_is_named_in_plain_words_with_its_counts() -> None:
    """The very example of the documentation: 41 of 60 against 3 of 212."""
    source = random.Random(1)
    facts = [
        *[attempt(source, at, at < 41, "header:diversion", *some(source)[1:]) for at in range(60)],
        *[attempt(source, 60 + at, at < 3) for at in range(212)],
    ]
    source.shuffle(facts)
    facts = [fact._replace(time=NOON + at) for at, fact in enumerate(facts)]
    found = differences(facts)
    assert [finding.name for finding in found] == ["header:diversion"]
    assert found[0].sentence.startswith(
        "INVITEs with `Diversion` failed 41 of 60 times, others 3 of 212 (68 % against 1 %)"
    )
    assert found[0].ratio == pytest.approx((41 / 60) / (3 / 212))
    assert found[0].answers[0] == ("400 Bad Request", 41)
    assert found[0].p < 1e-20


def test_what_goes_along_with_a_cause_is_no_second_one() -> None:
    """`privacy` comes with `diversion` in nine of ten calls, and larger INVITEs too."""
    source = random.Random(2)
    facts = []
    for at in range(600):
        diverted = source.random() < 0.3
        shape = ["header:diversion", "diversion-user:E.164"] if diverted else []
        if diverted and source.random() < 0.9:
            shape.append("header:privacy")
        size = 1400 if diverted else 1000
        failed = source.random() < (0.7 if diverted else 0.03)
        facts.append(attempt(source, at, failed, *shape, invite_bytes=size + source.randrange(50)))
    found = differences(facts)
    assert [finding.name for finding in found] == ["header:diversion"]
    assert "whose Diversion user part is E.164" in found[0].also


def test_a_cause_among_many_failures() -> None:
    """Where more than half fail for other reasons, a cause can't double the rate, and is one all the same."""
    source = random.Random(17)
    facts = []
    for at in range(600):
        address = f"tls:203.0.113.{21 + at % 3}:5061"
        facts.append(attempt(source, at, at % 3 == 0 or source.random() < 0.55, address=address))
    assert [finding.kind for finding in differences(facts)] == ["address"]


def test_a_header_that_is_missing() -> None:
    source = random.Random(3)
    facts = []
    for at in range(400):
        has = source.random() < 0.8
        facts.append(
            attempt(source, at, source.random() < (0.02 if has else 0.6), *(["header:privacy"] if has else []))
        )
    found = differences(facts)
    assert [finding.words for finding in found] == ["without `Privacy`"]


def test_an_address_that_never_answers() -> None:
    """Its failures are hidden within attempts that succeed at the next address."""
    source = random.Random(4)
    facts = []
    for at in range(300):
        good = attempt(source, at, source.random() < 0.02, address="tls:203.0.113.21:5061")
        if at % 3 == 0:
            facts.append(
                good._replace(hop=1, outcome="hop", cause="target-slow", status=None, address="tls:203.0.113.22:5061")
            )
        facts.append(good)
    found = differences(first_attempts(facts))
    assert [(finding.kind, finding.failed, finding.total) for finding in found] == [("address", 100, 100)]
    assert found[0].answers[0] == ("no answer in time", 100)


def test_a_window_of_time() -> None:
    source = random.Random(5)
    facts = [
        attempt(source, at, source.random() < (0.8 if 200 <= at < 260 else 0.03), *some(source)) for at in range(800)
    ]
    found = differences(facts)
    assert [finding.kind for finding in found] == ["time"]
    assert found[0].since == pytest.approx(NOON + 2000, abs=60)
    assert found[0].until == pytest.approx(NOON + 2600, abs=60)
    assert "between 2026-11-23 12:3" in found[0].sentence


@pytest.mark.parametrize("seed", range(4))
def test_an_address_that_is_broken_for_some_time(seed: int) -> None:
    """Neither the address alone nor the time alone says it, whichever of the two is the stronger."""
    source = random.Random(seed)
    facts = []
    for at in range(900):
        broken = at % 3 == 0 and 400 <= at < (480, 560, 700, 760)[seed]
        address = f"tls:203.0.113.{21 + at % 3}:5061"
        facts.append(attempt(source, at, broken or source.random() < 0.03, *some(source), address=address))
    found = differences(facts)
    assert [(finding.kind, finding.name) for finding in found] == [("address", "tls:203.0.113.21:5061")]
    assert found[0].since == pytest.approx(NOON + 4000, abs=60)
    assert "to the address tls:203.0.113.21:5061 between 2026-11-23 13:0" in found[0].sentence
    assert found[0].failed == found[0].total


def test_a_header_that_is_refused_since_a_moment() -> None:
    source = random.Random(20)
    facts = []
    for at in range(800):
        has = source.random() < 0.3
        failed = source.random() < (0.7 if has and at >= 500 else 0.02)
        facts.append(attempt(source, at, failed, *(["header:diversion"] if has else [])))
    found = differences(facts)
    assert [finding.name for finding in found] == ["header:diversion"]
    assert found[0].words.startswith("with `Diversion` since 2026-11-23 13:2")
    assert found[0].until is None
    assert found[0].ended is None


def test_a_cause_that_a_bad_time_makes_worse_is_told_whole() -> None:
    source = random.Random(21)
    facts = []
    for at in range(1200):
        has = source.random() < 0.3
        failed = source.random() < (0.9 if 300 <= at < 450 else 0.6 if has else 0.03)
        facts.append(attempt(source, at, failed, *(["header:diversion"] if has else [])))
    found = differences(facts)
    assert {(finding.kind, finding.name if finding.kind == "header" else "") for finding in found} == {
        ("header", "header:diversion"),
        ("time", ""),
    }
    assert all(finding.since is None for finding in found if finding.kind == "header")


@pytest.mark.parametrize("calls", [100, 300, 1000])
def test_how_exact_a_window_is_depends_on_the_calls(calls: int) -> None:
    """Over many runs, the ends lie where the report says that they may."""
    right = told = 0
    for seed in range(40):
        source = random.Random(seed)
        start, end = 0.3 * calls + source.random(), 0.5 * calls + source.random()
        facts = [attempt(source, at, source.random() < (0.8 if start <= at < end else 0.03)) for at in range(calls)]
        for finding in differences(facts):
            assert finding.kind == "time"
            assert finding.began is not None
            assert finding.ended is not None
            told += 1
            right += finding.began[0] <= NOON + 10 * start <= finding.began[1]
            right += finding.ended[0] <= NOON + 10 * end <= finding.ended[1]
            assert "it began between" in finding.exactness
    assert told >= 38
    assert right / (2 * told) > 0.95


def test_since_a_moment() -> None:
    source = random.Random(6)
    facts = [attempt(source, at, source.random() < (0.6 if at >= 300 else 0.02)) for at in range(400)]
    found = differences(facts)
    assert len(found) == 1
    assert found[0].words.startswith("since 2026-11-23 12:")


def test_too_few_calls_say_nothing() -> None:
    source = random.Random(7)
    facts = [attempt(source, at, at % 2 == 0, *(["header:privacy"] if at % 2 == 0 else [])) for at in range(8)]
    assert differences(facts) == []
    assert differences([]) == []
    assert diagnose([]).findings == ()
    assert report_lines(diagnose([])) == ["There are no calls in this time."]


def test_callers_who_gave_up_are_not_compared() -> None:
    source = random.Random(8)
    facts = [attempt(source, at, True, cause="caller-gave-up", outcome="cancelled") for at in range(50)]
    assert first_attempts(facts) == []


def test_new_addresses_and_a_missing_header_are_one_change() -> None:
    source = random.Random(9)
    facts = []
    for at in range(300):
        new = at >= 180
        answer = ("header:contact",) if new else ("header:contact", "header:content-type")
        address = f"tls:{'198.51.100' if new else '203.0.113'}.{source.randrange(2)}:5061"
        facts.append(attempt(source, at, False, answer=answer, address=address))
    found = changes(facts)
    assert {change.side for change in found} == {"target"}
    words = [word for change in found for word in change.words]
    assert "come without `Content-Type`" in words
    assert "come from tls:198.51.100.0:5061" in words
    assert "come from tls:203.0.113.1:5061 no more" in words
    assert all(abs(change.time - (NOON + 1800)) < 60 for change in found)
    assert found[0].sentence.startswith("Since 2026-11-23 12:")


def test_a_new_user_agent_of_the_caller() -> None:
    source = random.Random(10)
    facts = [
        attempt(source, at, False, user_agent="Twilio Gateway 2" if at >= 100 else "Twilio Gateway")
        for at in range(200)
    ]
    found = changes(facts)
    assert [change.side for change in found] == ["caller"]
    assert "have the User-Agent Twilio Gateway 2" in found[0].words
    assert (found[0].before, found[0].after) in ((0, 100), (100, 0))


def test_one_rule_set_is_no_experiment() -> None:
    source = random.Random(14)
    assert experiments([attempt(source, at, False) for at in range(100)]) == []


def test_rule_sets_are_arms() -> None:
    source = random.Random(15)
    facts = [attempt(source, at, at % 5 == 0, rules_version=str(at % 2)) for at in range(200)]
    found = experiments(facts)
    assert [arm.name for arm in found[0].arms] == ["twilio-openai 0", "twilio-openai 1"]


def test_report_as_values_has_the_sentences() -> None:
    source = random.Random(16)
    facts = [attempt(source, at, at < 60, *(["header:privacy"] if at < 70 else [])) for at in range(300)]
    report = diagnose(facts)
    values = report.as_dict()
    assert values["findings"][0]["sentence"] == report.findings[0].sentence
    assert values["causes"][0]["cause"] == "refused-syntax"
    assert values["by_attempt"] == ((1, 300, 60),)
    assert any(report.findings[0].sentence in line for line in report_lines(report))
