"""Experiments: statistics against published and independent results, peeking, and calls through the real stack."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.diagnosis.experiments import Comparison, Experiment, experiments
from proxy.diagnosis.facts import AttemptFacts
from proxy.rehearsal import WALL_OFFSET, Causes, Rehearsal, RehearsalOptions
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.storage.queries import StoreReader
from proxy.storage.sink import StoreSettings, StoreSink

DOCUMENT = Path(__file__).parents[2] / "docs" / "diagnosis.md"


def facts(results: Iterable[tuple[str, bool]]) -> list[AttemptFacts]:
    """A first attempt for each arm and success."""
    return [
        AttemptFacts(
            f"call{at}", 1000.0 + at, 1, 0, outcome="answered" if good else "status",
            cause="answered" if good else "refused-syntax", tags=(f"experiment:x={arm}",), call_outcome="answered",
        )
        for at, (arm, good) in enumerate(results)
    ]  # fmt: skip


def counts(good: int, total: int, good_base: int, total_base: int) -> list[AttemptFacts]:
    """Two arms of these counts, well mixed."""
    results = [("a", at < good) for at in range(total)] + [("b", at < good_base) for at in range(total_base)]
    random.Random(1).shuffle(results)
    return facts(results)


def only(found: list[Experiment]) -> tuple[Experiment, Comparison]:
    """The experiment by tag, and its comparison."""
    tagged = [experiment for experiment in found if experiment.name == "x"]
    assert len(tagged) == 1
    assert len(tagged[0].comparisons) == 1
    return tagged[0], tagged[0].comparisons[0]


@pytest.mark.parametrize(
    ("numbers", "wilson", "newcombe", "p"),
    [
        # Counts of 20 for the smaller arm: the first look, whose level is 0.025. Figures of statsmodels 0.14
        # (proportion_confint "wilson"; confint_proportions_2indep "newcomb", alpha=0.025) and R's fisher.test.
        ((15, 20, 9, 20), (0.5312991224, 0.8881382986), (-0.0422992543, 0.5607204368), 0.1053),
        ((20, 20, 17, 20), (0.8388748419, 1.0), (-0.0763206899, 0.3950095140), 0.2308),
        ((2, 20, 19, 20), (0.0278664812, 0.3010336452), (-0.9374101303, -0.5244032910), 5.8195e-08),
    ],
)
def test_intervals_and_p_values_are_those_of_others(
    numbers: tuple[int, int, int, int], wilson: tuple[float, float], newcombe: tuple[float, float], p: float
) -> None:
    experiment, comparison = only(experiments(counts(*numbers)))
    arm = next(arm for arm in experiment.arms if arm.name == "a")
    assert (arm.low, arm.high) == pytest.approx(wilson, abs=1e-9)
    sign = 1 if comparison.arm == "a" else -1
    assert sorted((sign * comparison.low, sign * comparison.high)) == pytest.approx(newcombe, abs=1e-9)
    assert comparison.p == pytest.approx(p, rel=1e-3)
    assert (comparison.look, comparison.calls, comparison.level) == (1, 20, 0.025)


def drawn(seed: int, calls: int, share: float, **chances: float) -> list[AttemptFacts]:
    """Calls in two arms by chance; `share` of them in the first."""
    source = random.Random(seed)
    first, second = sorted(chances)
    arms = [first if source.random() < share else second for _ in range(calls)]
    return facts([(arm, source.random() < chances[arm]) for arm in arms])


def test_looking_again_and_again_finds_nothing_where_nothing_is() -> None:
    """Every look counts, and all together err in fewer than 5 % of experiments. Their intervals hold all the while."""
    wrong = held = 0
    for seed in range(80):
        _, comparison = only(experiments(drawn(seed, 1600, 0.4, a=0.8, b=0.8)))
        wrong += "better" in comparison.verdict
        held += comparison.low <= 0 <= comparison.high
    assert wrong <= 4
    assert held >= 76


def test_a_look_says_the_same_whenever_it_is_asked() -> None:
    calls = drawn(3, 1500, 0.5, a=0.8, b=0.9)
    said: dict[int, Comparison] = {}
    decided = None
    for until in range(60, len(calls), 60):
        _, comparison = only(experiments(calls[:until]))
        side = comparison if comparison.arm == "a" else None
        if side is not None:
            assert said.setdefault(side.look, side) == side
        decided = decided or (comparison.look if comparison.stop else None)
        assert decided is None or comparison.look == decided, "what is decided stays so"
    assert decided is not None
    assert decided > 1


def test_no_difference_is_a_result_too() -> None:
    _, comparison = only(experiments(drawn(5, 6000, 0.5, a=0.99, b=0.99)))
    assert comparison.stop
    assert comparison.verdict == "stop: if there is a difference it is smaller than 2 points"
    assert comparison.next_calls is None


def test_three_arms_share_the_error() -> None:
    source = random.Random(6)
    found = experiments(facts([(source.choice("abc"), source.random() < 0.9) for _ in range(300)]))
    comparisons = next(experiment for experiment in found if experiment.name == "x").comparisons
    assert len(comparisons) == 2
    assert {comparison.level for comparison in comparisons} == {0.05 / (3 * 4) / 2}


def documented_rules() -> str:
    """The rule file of the documentation."""
    found = re.search(r"```yaml\n(version: 1\nname: experiment\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run_experiment(tmp_path: Path, causes: Causes) -> Path:
    """400 calls under the documented rules through the real stack; gives the store."""
    (tmp_path / "experiment.yaml").write_text(documented_rules())
    rules = load_directory_or_files([shipped_rules(), tmp_path / "experiment.yaml"])
    store = StoreSink(StoreSettings(tmp_path / "calls.db"), wall_offset=WALL_OFFSET)
    options = RehearsalOptions(calls=400, span_s=2800.0, seed=4, causes=causes)
    Rehearsal(options, rules, "experiment", [store]).run()
    assert store.flush(30.0)
    store.close()
    return tmp_path / "calls.db"


@pytest.mark.parametrize("causes", [Causes(header="Diversion"), Causes()], ids=["effect", "none"])
def test_a_rule_with_share_from_the_wire_to_the_report(causes: Causes, tmp_path: Path) -> None:
    store = run_experiment(tmp_path, causes)
    with StoreReader(store) as reader:
        calls = reader.calls(limit=1000)
        for call in calls:
            assert len(call.tags) == 1, "a call is in one arm, whatever its attempts"
            sent = [
                event["message"]
                for event in reader.timeline(call.key)
                if event["event"] == "message" and event["leg"] == "b" and event["message"].startswith("INVITE ")
            ]
            # The third attempt has another rule set, which leaves out more.
            assert len(sent) == call.attempts
            if call.tags == ("experiment:diversion=without",):
                assert not any("\r\nDiversion:" in message for message in sent)
        assert max(call.attempts for call in calls) > 1
        assert 150 < sum("without" in call.tags[0] for call in calls) < 250
    result = CliRunner().invoke(app, ["experiment", "report", "--store", str(store)])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "diversion (first attempts that were answered)"
    assert ("stop: without is better than with" in result.stdout) == bool(causes.header)
    assert all(len(line) <= 80 for line in lines)
    if causes.header:
        assert result.stdout.rstrip() in DOCUMENT.read_text(), "the documented report is this one"
    else:
        assert "go on: " in result.stdout
