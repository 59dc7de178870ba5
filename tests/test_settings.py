"""Settings: which source counts, what the stack is told, and what each mistake is called."""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.b2bua.config import AttemptPlan, Reach, RetryPolicy, Route, StackConfig
from proxy.settings import FLAGS, NAMED_NETWORKS, Settings, SettingsError, load, load_rules, shipped_rules
from proxy.settings.sources import PREFIX
from proxy.settings.table import settings_table
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {path.stem for path in (ROOT / "rules").glob("*.yaml")}
LOOPBACK: dict[str, Any] = {"listen": ["udp:127.0.0.1:5060"], "targets": ["sip:127.0.0.1:5080"]}


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def problems(flags: dict[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(flags)
    return caught.value.problems


def test_project_and_address_in_the_environment_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_OPENAI_PROJECT_ID", "proj_abc")
    monkeypatch.setenv("TRUNKLINE_PUBLIC_ADDRESS", "sip.example.com")
    settings = load()
    sets, default = load_rules(settings)
    config = settings.stack_config(sets, default)
    assert [str(item) for item in settings.listeners()] == ["udp:0.0.0.0:5060", "tcp:0.0.0.0:5060"]
    assert [(name, str(target.uri)) for name, target in config.targets.items()] == [
        ("openai", "sip:proj_abc@sip.api.openai.com;transport=tls")
    ]
    assert config.public_address == "sip.example.com"
    assert [network.text for network in config.allow] == list(NAMED_NETWORKS["twilio"])
    assert default == "twilio-openai"
    assert set(sets) == SHIPPED
    assert config.retry == RetryPolicy(attempts=(AttemptPlan(), AttemptPlan(), AttemptPlan(rules="minimal")))
    assert settings.notes() == []


def test_certificate_adds_a_tls_listener() -> None:
    tls = {"certificate": "c.pem", "key": "k.pem"}
    settings = load({"openai_project_id": "proj_a", "public_address": "sip.example.com", "tls": tls})
    assert str(settings.listeners()[-1]) == "tls:0.0.0.0:5061"
    assert settings.tls_settings().certificate == Path("c.pem")


def test_target_of_ones_own_needs_no_project_and_bound_address_no_public_one() -> None:
    settings = load({**LOOPBACK, "allow": ["127.0.0.0/8", "2001:db8::/32", "192.0.2.9"]})
    config = settings.stack_config(*load_rules(settings))
    assert config.public_address == "127.0.0.1"
    assert str(config.targets["main"].uri) == "sip:127.0.0.1:5080"
    ranges = [(item.version, item.last - item.first + 1) for item in config.allow]
    assert ranges == [(4, 1 << 24), (6, 1 << 96), (4, 1)]


def test_nothing_set_gives_what_the_parts_have_by_default() -> None:
    """So that a default stands in one place only."""
    settings = load(LOOPBACK)
    config = settings.stack_config(*load_rules(settings))
    plain = StackConfig(config.targets, config.rules, config.default_rules, config.allow)
    assert config.screen_rules == "scanners"
    computed = {name: getattr(config, name) for name in ("retry", "user_agent", "screen_rules", "refer_reach")}
    assert replace(plain, **computed) == config
    assert settings.stream_settings() == StreamSettings()
    assert settings.tls_settings() == TlsSettings()


def test_yaml_words_are_what_they_look_like(tmp_path: Path) -> None:
    """`on` is true in YAML 1.1, and `1.2` a number."""
    text = "retry:\n  on: [503]\ntls: {minimum_version: 1.3}\nuser_agent: no\n"
    settings = load({**LOOPBACK, "config": write(tmp_path / "s.yaml", text)})
    assert (settings.retry.on, settings.tls.minimum_version, settings.user_agent) == ((503,), "1.3", "no")


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "log_level: error\ndrain_s: 1\nuser_agent: File\nretry: {max_attempts: 2, jitter: 0.5, deadline_s: 9}\n"
    monkeypatch.setenv("TRUNKLINE_CONFIG", write(tmp_path / "s.yaml", text))
    monkeypatch.setenv("TRUNKLINE_DRAIN_S", "2")
    monkeypatch.setenv("TRUNKLINE_USER_AGENT", "Environment")
    monkeypatch.setenv("TRUNKLINE_RETRY__JITTER", "0.75")
    settings = load({**LOOPBACK, "user_agent": "Flag"})
    assert (settings.log_level, settings.drain_s, settings.user_agent) == ("error", 2, "Flag")
    retry = settings.retry
    assert (retry.max_attempts, retry.jitter, retry.deadline_s, retry.backoff_factor) == (2, 0.75, 9, 2)


def test_flag_names_another_file_than_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CONFIG", str(tmp_path / "absent.yaml"))
    other = write(tmp_path / "other.yaml", "drain_s: 3")
    assert load({**LOOPBACK, "config": other}).drain_s == 3


def test_targets_of_a_higher_source_replace_all_of_a_lower_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(
        tmp_path / "s.yaml", "targets: {one: 'sip:192.0.2.1', two: 'sip:192.0.2.2'}\nlisten: udp:127.0.0.1:5060"
    )
    assert list(load({"config": file}).stack_targets()) == ["one", "two"]
    monkeypatch.setenv("TRUNKLINE_TARGETS", "three=sip:192.0.2.3, sip:192.0.2.4")
    targets = load({"config": file}).stack_targets()
    assert {name: str(target.uri) for name, target in targets.items()} == {
        "three": "sip:192.0.2.3",
        "target2": "sip:192.0.2.4",
    }
    assert list(load({"config": file, "targets": ["sip:192.0.2.5;lr=on"]}).stack_targets()) == ["main"]


def test_targets_may_be_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_TARGETS", '{"a": "sip:192.0.2.1", "b": {"uri": "sip:192.0.2.2", "ping_s": 5}}')
    assert [target.ping_s for target in load({"listen": ["udp:127.0.0.1:1"]}).stack_targets().values()] == [0, 5]


def test_order_of_targets_is_their_priority_unless_they_say_otherwise() -> None:
    targets = {"a": "sip:192.0.2.1", "b": {"uri": "sip:192.0.2.2", "priority": 7}, "c": {"uri": "sip:192.0.2.3"}}
    settings = load({**LOOPBACK, "targets": targets})
    assert [target.priority for target in settings.stack_targets().values()] == [0, 7, 2]


def test_project_goes_into_targets(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", "targets:\n  eu: sip:{openai_project_id}@sip-eu.api.openai.com;transport=tls\n")
    settings = load({"config": file, "openai_project_id": "proj_z", "public_address": "192.0.2.1"})
    assert str(settings.stack_targets()["eu"].uri) == "sip:proj_z@sip-eu.api.openai.com;transport=tls"
    assert problems({"config": file, "public_address": "192.0.2.1"})[0].startswith(
        "TRUNKLINE_OPENAI_PROJECT_ID is not set: "
    )


def test_lists_in_the_environment_are_commas_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CODECS", "opus, PCMU ,telephone-event")
    monkeypatch.setenv("TRUNKLINE_ALLOW", "[]")
    monkeypatch.setenv("TRUNKLINE_RETRY__ON", "503,timeout")
    monkeypatch.setenv("TRUNKLINE_RETRY__ATTEMPTS", '[{}, {"rules": "minimal"}]')
    settings = load(LOOPBACK)
    assert settings.codecs == ("opus", "PCMU", "telephone-event")
    assert settings.networks() == ()
    policy = settings.retry_policy()
    assert (policy.statuses, policy.on_timeout, policy.on_transport_failure) == (frozenset((503,)), True, False)
    assert policy.attempts == (AttemptPlan(), AttemptPlan(rules="minimal"))


def test_empty_variables_and_those_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_LOG_LEVEL", "")
    for name, value in {
        "TRUNKLINE_SERVICE_HOST": "192.0.2.1",
        "TRUNKLINE_SERVICE_PORT": "5060",
        "TRUNKLINE_SERVICE_PORT_SIP_UDP": "5060",
        "TRUNKLINE_PORT": "udp://192.0.2.1:5060",
        "TRUNKLINE_PORT_5060_UDP": "udp://192.0.2.1:5060",
        "TRUNKLINE_PORT_5060_UDP_ADDR": "192.0.2.1",
        "TRUNKLINE_ADMIN_SERVICE_HOST": "192.0.2.2",
        "TRUNKLINE_ADMIN_PORT_8080_TCP_PROTO": "tcp",
    }.items():
        monkeypatch.setenv(name, value)
    assert load(LOOPBACK).log_level == "info"
    monkeypatch.setenv("TRUNKLINE_PORT", "5060")
    assert problems(LOOPBACK)[0].startswith("TRUNKLINE_PORT: unknown setting port")


def test_trunks_routes_and_users_reach_the_stack() -> None:
    flags = {
        **LOOPBACK,
        "trunks": {"twilio": {"allow": ["twilio"], "listener": "udp:127.0.0.1:5060"}},
        "routes": [
            {"targets": ["main"], "trunk": "twilio", "dialed": "+1*", "header": "X-Tenant", "rules": "minimal"},
            {"targets": ["main"], "trunk": "alice"},
        ],
        "users": {"alice": "s3cret"},
    }
    settings = load(flags)
    config = settings.stack_config(*load_rules(settings))
    assert [(trunk.name, len(trunk.networks), trunk.listener) for trunk in config.trunks] == [
        ("twilio", 8, "udp:127.0.0.1:5060")
    ]
    assert config.routes[0] == Route(("main",), "twilio", "+1*", "x-tenant", "*", "minimal")
    assert config.users == {"alice": "s3cret"}


def test_refer_to_names_hosts_in_several_ways() -> None:
    flags = {
        "listen": ["udp:127.0.0.1:5060"],
        "targets": ["sip:PBX.example.com:5070", "eu=sip:[2001:db8::5]", "by=sip:x@proxy.example;maddr=192.0.2.1"],
        "allow": ["twilio", "0.0.0.0/0"],
        "trunks": {"office": {"allow": ["192.0.2.0/24"]}},
    }
    settings = load(flags)
    reach = settings.stack_config(*load_rules(settings)).refer_reach
    targets = (("pbx.example.com", 5070), ("2001:db8::5", 0), ("proxy.example", 0), ("192.0.2.1", 0))
    assert (reach.anywhere, reach.hosts) == (False, targets)
    assert [network.text for network in reach.networks][-2:] == ["177.71.206.192/30", "192.0.2.0/24"]
    written = ["*.pstn.twilio.com", "sip.example.com:5080", "[2001:db8::7]:5080", "10.0.0.0/8", "openai"]
    settings = load({**flags, "calls": {"refer_to": written}})
    reach = settings.stack_config(*load_rules(settings)).refer_reach
    assert reach.hosts == (("*.pstn.twilio.com", 0), ("sip.example.com", 5080), ("2001:db8::7", 5080))
    assert [network.text for network in reach.networks][:2] == ["10.0.0.0/8", "13.79.45.80/28"]
    settings = load({**flags, "calls": {"refer_to": ["any"]}})
    assert settings.stack_config(*load_rules(settings)).refer_reach == Reach(anywhere=True)
    settings = load({**flags, "calls": {"refer_to": []}})
    assert settings.stack_config(*load_rules(settings)).refer_reach == Reach()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {"listen": ["udp:127.0.0.1:70000"]},
            "--listen: listener 'udp:127.0.0.1:70000': '70000' is no port (0 to 65535)",
        ),
        ({"listen": ["sctp:127.0.0.1:5060"]}, "--listen: listener 'sctp:127.0.0.1:5060': no transport 'sctp'"),
        ({"targets": ["http://example.com"]}, "--target: main: http://example.com is no SIP URI: it must start with"),
        ({"targets": ["a=sip:x;transport=ws"]}, "--target: a: transport ws is not spoken (allowed: udp, tcp, tls)"),
        ({"targets": ["a=sip:x", "a=sip:y"]}, "--target: two targets are named a"),
        ({"targets": ["sip:x?Subject=y"]}, "--target: main: sip:x?Subject=y carries headers"),
        (
            {"allow": ["twillio"]},
            "--allow: twillio is neither an address, nor a range such as 192.0.2.0/24, nor a named",
        ),
        ({"allow": ["twillio"]}, "; did you mean twilio? (lists: twilio, openai)"),
        ({"public_address": "http://x"}, "--public-address: http://x is neither an IP address nor a host name"),
        ({"public_address": "0.0.0.0"}, "--public-address: 0.0.0.0 is no address that peers could reach"),
        ({"openai_project_id": "proj x"}, "--project-id: proj x is no project id"),
        ({"log_level": "loud"}, "--log-level: must be 'debug', 'info', 'warning' or 'error' (given: loud)"),
        ({"tls": {"certificate": "c.pem"}}, "tls: certificate and key go together"),
        ({"listen": ["tls:127.0.0.1:5061"]}, "tls.certificate is not set: a tls listener needs --tls-certificate and"),
        ({"retry": {"on": [403]}}, "retry.on: 403 can't be retried: 403, 404, 486, 487 and 6xx are final answers"),
        ({"retry": {"on": [200]}}, "retry.on: 200 can't be retried"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts: must be greater than or equal to 1 (given: 0)"),
        (
            {"retry": {"attempts": [{"target": "mian"}]}},
            "attempt 1: there is no target mian; did you mean main? (targets: main)",
        ),
        ({"routes": [{"targets": ["nope"]}]}, "routes: route 1: there is no target nope (targets: main)"),
        ({"routes": [{"targets": ["main"], "trunk": "x"}]}, "routes: route 1: there is no trunk x (trunks: none)"),
        ({"routes": [{"targets": []}]}, "a route needs at least one target"),
        (
            {"trunks": {"x": {"allow": [], "listener": "udp:127.0.0.1:5062"}}},
            "trunks: x: there is no listener udp:127.0.0.1:5062",
        ),
        ({"codecs": []}, "codecs: may not be empty"),
        ({"calls": {"session_expires_s": 60}}, "calls.session_expires_s: a session interval has at least 90 seconds"),
        (
            {"calls": {"refer_to": ["targets", "a b", "10.0.0.0/99"]}},
            "calls.refer_to: a b is neither `targets`, `trunks` or `any`, nor a host, a pattern for hosts or a range",
        ),
        ({"calls": {"probe_s": 0.5}}, "calls.probe_s: 0 for never, or at least 1 second"),
        ({"digest_algorithms": ["SHA-512"]}, "digest_algorithms: must be 'SHA-256' or 'MD5'"),
        ({"digest_algorithms": []}, "digest_algorithms: may not be empty"),
        ({"user_agent": "a\r\nb"}, "user_agent: control characters are not allowed"),
        ({"timers": {"t1_s": "abc"}}, "timers.t1_s: must be a valid number"),
    ],
)
def test_mistake_has_a_line_with_its_place_and_what_is_allowed(flags: dict[str, Any], expected: str) -> None:
    found = problems({**LOOPBACK, **flags})
    assert any(expected in line for line in found), found
    assert all("\n" not in line for line in found)


def test_mistakes_in_the_file_have_their_lines_and_all_are_told_at_once(tmp_path: Path) -> None:
    file = write(
        tmp_path / "s.yaml",
        "listen: [udp:127.0.0.1:5060]\nretry:\n  max_atempts: 3\n  attempts:\n    - {}\n    - {rulez: minimal}\n"
        "log_level: 7\n",
    )
    found = problems({"config": file})
    assert [line.partition(" (allowed")[0] for line in found] == [
        f"{file}:6: retry.attempts.rulez: unknown setting rulez; did you mean rules?",
        f"{file}:3: retry.max_atempts: unknown setting max_atempts; did you mean max_attempts?",
        f"{file}:7: log_level: must be 'debug', 'info', 'warning' or 'error' (given: 7)",
        found[3],
    ]
    assert found[3].startswith("TRUNKLINE_OPENAI_PROJECT_ID is not set")


def test_mistakes_in_variables_are_named_by_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_LISTN", "udp:127.0.0.1:5060")
    monkeypatch.setenv("TRUNKLINE_RETRY__MAX_ATTEMPTS", "many")
    monkeypatch.setenv("TRUNKLINE_ROUTES", "[")
    lines = dict(line.split(": ", 1) for line in problems(LOOPBACK))
    assert lines["TRUNKLINE_LISTN"].startswith("unknown setting listn; did you mean listen? (allowed: ")
    assert lines["TRUNKLINE_RETRY__MAX_ATTEMPTS"].endswith("(given: many)")
    assert lines["TRUNKLINE_ROUTES"].startswith("not valid JSON: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2\n", ":2:2: not valid YAML: "),
        ("- a\n- b\n", ":1: a settings file is a mapping of `setting: value` lines"),
        ("drain_s: 1\nlog_level: info\ndrain_s: 2\n", ":3: drain_s stands twice (first in line 1)"),
        ("retry:\n  jitter: 0\n  jitter: 1\n", ":3: jitter stands twice (first in line 2)"),
        ("drain_s: !!python/object/apply:os.getcwd []\n", "not valid YAML: could not determine a constructor"),
        ("\x00", "not valid YAML: "),
    ],
)
def test_unusable_file_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path / "s.yaml", text)
    (line,) = problems({"config": file})
    assert line.startswith(file)
    assert expected in line


def test_absent_file_is_told(tmp_path: Path) -> None:
    assert problems({"config": str(tmp_path / "no.yaml")}) == (
        f"{tmp_path / 'no.yaml'}: the settings file can't be read: No such file or directory",
    )


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load({**LOOPBACK, "config": write(tmp_path / "s.yaml", "# nothing\n")}).log_level == "info"


def test_passwords_are_neither_shown_nor_told_in_mistakes() -> None:
    flags = {**LOOPBACK, "targets": {"a": {"uri": "sip:192.0.2.1", "password": "hunter2"}}, "users": {"u": "hunter3"}}
    assert "hunter" not in repr(load(flags))
    wrong = {**LOOPBACK, "targets": {"a": {"uri": "sip:192.0.2.1", "password": 112233}}, "users": {"u": 445566}}
    text = "\n".join(problems(wrong))
    assert "password" in text
    assert not re.search("112233|445566", text)


def test_settings_that_are_probably_not_meant_are_noted() -> None:
    flags = {
        "openai_project_id": "proj_a",
        "public_address": "10.0.0.1",
        "allow": ["0.0.0.0/0"],
        "tls": {"verify": False},
    }
    assert load(flags).notes() == [
        "allow: 0.0.0.0/0 admits calls from everywhere",
        "tls.verify is off: anybody can pose as the target",
        "public_address 10.0.0.1 is not routed on the Internet: peers there can't reach it",
    ]
    assert load({**LOOPBACK, "allow": []}).notes() == [
        "allow is empty, and there are no trunks or users: nobody may call"
    ]


RULES = """version: 1
name: {name}
rules:
  - id: drop-subject
    why: A test.
    do:
      - remove: Subject
"""


def test_first_rule_file_is_the_default_and_shipped_sets_stay(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.yaml", RULES.format(name="mine"))
    other = write(tmp_path / "other.yaml", RULES.format(name="minimal"))
    sets, default = load_rules(load({**LOOPBACK, "rules": [mine, other]}))
    assert default == "mine"
    assert set(sets) == {"mine", *SHIPPED}
    assert sets["minimal"].source == other
    assert load_rules(load({**LOOPBACK, "rules": [mine], "default_rules": "minimal"}))[1] == "minimal"


def test_mistakes_of_all_rule_files_are_told(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.yaml", "version: 1\nname: x\nrulez: []\n") for name in ("a", "b")]
    with pytest.raises(SettingsError) as caught:
        load_rules(load({**LOOPBACK, "rules": files}))
    assert {line.partition(":")[0] for line in caught.value.problems} == set(files)


def test_rule_set_that_is_not_there_is_told() -> None:
    settings = load(
        {
            **LOOPBACK,
            "default_rules": "twilio",
            "retry": {"attempts": [{"rules": "minimum"}]},
            "routes": [{"targets": ["main"], "rules": "none"}],
        }
    )
    with pytest.raises(SettingsError) as caught:
        settings.stack_config(*load_rules(settings))
    assert [line.partition(" (rule sets")[0] for line in caught.value.problems] == [
        "default_rules: there is no rule set twilio; did you mean twilio-openai?",
        "retry.attempts: attempt 1: there is no rule set minimum; did you mean minimal?",
        "routes: route 1: there is no rule set none",
    ]


def test_shipped_rules_are_those_of_the_checkout() -> None:
    assert shipped_rules() == ROOT / "rules"


def test_shipped_rules_of_a_wheel_lie_inside_the_package(tmp_path: Path) -> None:
    """A real wheel, unpacked far from the checkout."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(unpacked)
    code = (
        "from proxy.settings import load, load_rules, shipped_rules\n"
        "print(shipped_rules())\n"
        "print(*sorted(load_rules(load({'listen': ['udp:127.0.0.1:1'], 'targets': ['sip:127.0.0.1']}))[0]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    place, names = result.stdout.splitlines()
    assert Path(place) == unpacked / "proxy" / "_shipped_rules"
    assert set(names.split()) == SHIPPED


def test_flags_name_settings_that_there_are() -> None:
    table = settings_table()
    assert all(f"| `{name}` | `{flag}` |" in table for name, flag in FLAGS.items())


def test_every_setting_says_what_it_is() -> None:
    rows = [line.strip("| ").split(" | ") for line in settings_table().splitlines()[2:]]
    assert len(rows) > len(Settings.model_fields)
    assert [row[0] for row in rows if not row[-1].strip()] == []


@pytest.mark.parametrize(("name", "short"), [("README.md", True), ("docs/settings.md", False)])
def test_tables_in_the_documentation_are_those_of_the_models(name: str, short: bool) -> None:
    assert settings_table(short=short) in (ROOT / name).read_text(), "print it by python -m proxy.settings.table"


def examples() -> list[tuple[str, str]]:
    found = []
    for name in ("README.md", "docs/settings.md", "docs/deploy.md"):
        blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
        found += [(f"{name}:{number}", block) for number, block in enumerate(blocks, 1)]
    return found


@pytest.mark.parametrize(("name", "text"), examples(), ids=lambda value: value if "\n" not in value else "")
def test_examples_in_the_documentation_load(tmp_path: Path, name: str, text: str) -> None:
    settings = load({"config": write(tmp_path / "s.yaml", text)})
    assert settings.stack_config(*load_rules(settings)).targets
