"""Which settings a running process takes up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from proxy.commands.prepare import Current, prepare
from proxy.settings import Settings, SettingsError
from proxy.settings.reloading import FIXED, take_up

FILE = """listen: [udp:127.0.0.1:5060]
targets: {{main: "sip:127.0.0.1:5080"}}
{more}
"""


RULES = "version: 1\nname: mine\ndescription: {}\nrules: [{{id: x, why: y, do: [{{remove: X-A}}]}}]\n"


def current(tmp_path: Path, more: str = "") -> tuple[Current, Path]:
    path = tmp_path / "trunkline.yaml"
    path.write_text(FILE.format(more=more))
    return Current(prepare({"config": path})), path


@pytest.mark.parametrize(
    ("more", "changed", "waiting"),
    [
        ("", (), ()),
        ("retry: {max_attempts: 2}", ("retry",), ()),
        ("log_level: debug\nallow: [192.0.2.1]", ("allow", "log_level"), ()),
        ("workers: 3", (), ("workers",)),
        ("drain_s: 5\npublic_address: 192.0.2.1", ("drain_s",), ("public_address",)),
        ("tls: {watch_s: 7}", (), ("tls.watch_s",)),
        ("tls: {verify: false, watch_s: 7}", ("tls",), ("tls.watch_s",)),
        ("limits: {max_calls: 5}\nusers: {us: secret}", ("users", "limits"), ()),
        ("admin: {listen: '1'}\nwebhook: {path: /x}", (), ("admin", "webhook")),
    ],
)
def test_what_changes_and_what_waits(
    tmp_path: Path, more: str, changed: tuple[str, ...], waiting: tuple[str, ...]
) -> None:
    running, path = current(tmp_path)
    before = running.prepared.settings
    path.write_text(FILE.format(more=more))
    taken = running.load_settings()
    assert (taken.changed, taken.waiting) == (changed, waiting)
    now = running.prepared.settings
    assert now is taken.settings
    for name in FIXED:
        assert getattr(now, name) == getattr(before, name)
    assert running.load_settings().changed == (), "once taken up it is what runs"
    assert running.load_settings().waiting == waiting


def test_the_stack_is_told(tmp_path: Path) -> None:
    running, path = current(tmp_path)
    path.write_text(FILE.format(more="retry: {max_attempts: 2}").replace("5080", "5099"))
    running.load_settings()
    config = running.prepared.config
    assert config.retry.max_attempts == 2
    assert str(config.targets["main"].uri) == "sip:127.0.0.1:5099"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            "retry: {max_atempts: 2}",
            r"trunkline\.yaml:3: retry\.max_atempts: unknown setting.* did you mean max_attempts",
        ),
        ("retry: {max_attempts: none}", r"trunkline\.yaml:3: retry\.max_attempts: must be a valid integer"),
        ("tls: {certificate: /nowhere.pem, key: /nowhere.key}", r"/nowhere\.(pem|key)"),
        ("rules: [/nowhere.yaml]", r"/nowhere\.yaml"),
        ("default_rules: nothing", r"there is no rule set nothing"),
        ("drain_s: [", r"trunkline\.yaml:[34]"),
    ],
)
def test_a_mistake_says_where_and_changes_nothing(tmp_path: Path, more: str, problem: str) -> None:
    running, path = current(tmp_path)
    before = running.prepared
    path.write_text(FILE.format(more=more))
    with pytest.raises(SettingsError) as caught:
        running.load_settings()
    assert any(re.search(problem, line) for line in caught.value.problems), caught.value.problems
    assert running.prepared is before


def test_rules_that_were_read_again_stay_with_other_settings(tmp_path: Path) -> None:
    rules = tmp_path / "mine.yaml"
    rules.write_text(RULES.format("first"))
    running, path = current(tmp_path, f"rules: [{rules}]")
    first = running.prepared.rules["mine"]
    rules.write_text(RULES.format("second"))
    running.load_rules()
    second = running.prepared.rules["mine"]
    assert second is not first
    path.write_text(FILE.format(more=f"rules: [{rules}]\ndrain_s: 1"))
    running.load_settings()
    assert running.prepared.config.rules["mine"] is second
    path.write_text(FILE.format(more="drain_s: 1"))
    assert running.load_settings().changed == ("rules",)
    assert "mine" not in running.prepared.config.rules


def test_the_documentation_lists_those_that_need_a_restart() -> None:
    text = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text()
    listed = re.search(r"need a restart: (.*?)\.\s", text, re.DOTALL)
    assert listed is not None
    assert re.findall(r"`([a-z_.]+)`", listed.group(1)) == [*FIXED, "tls.watch_s"]


def test_every_fixed_setting_is_one() -> None:
    assert set(FIXED) <= set(Settings.model_fields)
    one: dict[str, Any] = {"listen": ("udp:127.0.0.1:5060",), "targets": {"x": {"uri": "sip:127.0.0.1"}}}
    assert take_up(Settings(**one), Settings(**one)).changed == ()
