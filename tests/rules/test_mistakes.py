"""Every mistake in a rule file is told: file, line, column, the offending text, what is allowed, the nearest word."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import pytest

from proxy.rewrite.compiler import ACTIONS
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import Problem, RuleFileError, load_directory_or_files, load_file, load_text
from tests.rewrite.snippets import apply, context, message, rule_set

HEAD = "version: 1\nname: test\nrules:\n"


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(RuleFileError) as error:
        load_text(text, "test.yaml")
    return error.value.problems


def told(text: str) -> list[str]:
    """The problems without what is allowed."""
    return [
        f"{one.line}:{one.column} {one.text} {one.what.partition(' (while')[0]}"
        + (f" -> {one.suggestion}" if one.suggestion else "")
        for one in problems(text)
    ]


MISTAKES = r"""
version: 2
name: My Rules
autor: me
rules:
  - id: One
    why: ""
    when: {dirction: b-to-a, method: INVTIE, status: 4x, attempt: "3-2", transport: sctp}
    do:
      - remov: X-A
      - remove
      - remove: [X-A, "X B", From, Via, i]
      - keep-only: []
  - id: two
    wy: because
    enabled: yes
    when:
      header: {name: X-A, present: true, equals: 1}
      sdp: {codec: PCMU, private-address: orgin}
      any: {method: INVITE}
    do:
      - set: {header: Max-Forwards, value: 70}
      - set: {header: User-Agent, value: "{local.hots}"}
      - set: {header: X-A}
      - set: {header: X-A, value: "{header.}", vallue: 1}
      - add: {header: Subject, value: "{a", at: botom}
      - add: {header: X-A, value: "a}"}
      - rename: {from: Call-ID, to: Allow}
      - replace: {header: X-A, pattern: "(?=a)", with: b}
      - replace: {header: X-A, pattern: "(?P<one>a)", with: '\2 \g<oen> \x'}
      - replace: {header: X-A, pattern: "é?", with: b}
      - dedupe: singleton
      - set-status: {status: 200}
      - reject: {status: 302, reason: [a]}
      - {remove: X-A, add: {header: X-A, value: 1}}
      - edit-address: {headers: Contact, host: a}
      - edit-address: {headers: Diversion}
      - edit-address: {headers: Diversion, port: 70000, remove-header-params: tag}
      - sdp: {codcs: safe, codecs: [P CMU], ptime: {default-ms: 0}, crypto: saef, static-rtpmaps: false}
      - sdp: {}
  - just text
  - id: two
    why: again
    do: [{reject: {status: 400}}, {set-status: {status: 400}}]
""".lstrip()

TOLD = [
    '1:10 "2" is out of range',
    '2:7 "My Rules" is not an id -> my-rules',
    '3:1 "autor" is not a key of a rule file',
    '5:9 "One" is not an id -> one',
    '6:10 "" is empty',
    '7:12 "dirction" is not a condition -> direction',
    '7:38 "INVTIE" is not a method -> INVITE',
    '7:54 "4x" is not a number or a range of numbers',
    '7:67 "3-2" is not a number or a range of numbers',
    '7:85 "sctp" is not known here',
    '9:9 "remov" is not an action -> remove',
    '10:9 "remove" is not an action with its settings -> remove:',
    '11:23 "X B" is not a header name',
    '11:30 "From" is out of reach of this action: its tag is the identity of the dialog',
    '11:36 "Via" is out of reach of rules: Via is each hop\'s own transaction',
    '11:41 "i" is out of reach of rules: each leg has its own Call-ID',
    "12:20 a list is empty",
    '14:5 "wy" is not a key of a rule -> why',
    '15:14 "yes" is not a flag -> true',
    "17:15 a mapping needs exactly one test of the header",
    '18:13 "codec" is not a fact of the SDP -> has-codec',
    '18:43 "orgin" is not known here -> origin',
    "19:12 a mapping stands where a list must",
    '21:23 "Max-Forwards" is out of reach of rules: Max-Forwards stops loops',
    '22:23 "User-Agent" is written by Trunkline alone: it speaks for one leg\'s user agent',
    '22:42 "{local.hots}" names an unknown value, {local.hots} -> {local.host}',
    '23:14 a mapping lacks "value"',
    '24:35 "{header.}" names an unknown value, {header.} -> {header.NAME}',
    '24:48 "vallue" is not a key here -> value',
    '25:39 "{a" has a "{" without its "}"',
    '25:49 "botom" is not known here -> bottom',
    '26:35 "a}" has a "}" without its "{"',
    '27:24 "Call-ID" is out of reach of rules: each leg has its own Call-ID',
    '27:37 "Allow" is written by Trunkline alone: it speaks for one leg\'s user agent',
    '28:41 "(?=a)" is not a regular expression: invalid perl operator: (?=',
    '29:61 "\\2 \\g<oen> \\x" names a group that the pattern lacks, "\\2"',
    '29:61 "\\2 \\g<oen> \\x" names a group that the pattern lacks, "\\g<oen>" -> \\g<one>',
    '29:61 "\\2 \\g<oen> \\x" has "\\x" in it, which means nothing',
    '30:41 "é?" has é in a class or before a quantifier; patterns match bytes',
    '31:17 "singleton" is not known here -> singletons',
    '32:30 "200" is not a status that a rule can set',
    '33:26 "302" is out of range',
    "33:39 a list stands where text must",
    "34:9 a mapping must have exactly one action; begin each one with a dash of its own",
    '35:33 "Contact" is out of reach of rules: Contact is where we are reached in the dialog',
    "36:23 a mapping changes nothing",
    '37:50 "70000" is out of range',
    '37:79 "tag" is out of reach of rules: it is the identity of the dialog',
    '38:15 "codcs" is not an operation on the SDP -> codecs',
    '38:37 "P CMU" is not a codec',
    '38:65 "0" is out of range',
    '38:77 "saef" is not known here -> safe',
    '38:99 "false" does nothing; leave the key out',
    "39:14 a mapping changes nothing",
    '40:5 "just text" stands where a mapping must',
    '41:9 "two" is the id of the rule on line 13',
    "43:9 a list has an action that never meets a message that `when` lets through",
]


def test_all_mistakes_at_once() -> None:
    assert told(MISTAKES) == TOLD


def test_allowed_words_are_told() -> None:
    (problem,) = problems(f"{HEAD}  - {{id: a, why: b, do: [{{remov: X}}]}}\n")
    assert problem.allowed == ", ".join(ACTIONS)
    assert str(problem) == (
        f'test.yaml:4:27: "remov" is not an action; allowed: {problem.allowed}; did you mean "remove"?'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1  is empty"]),
        ("# nothing\n", ["1:1  is empty"]),
        ("a: [1", ["2:1  is not YAML: did not find expected ',' or ']'"]),
        ("a: b: c", ["1:5  is not YAML: mapping values are not allowed in this context"]),
        ("a: 1\n\tb: 2", ["2:1  is not YAML: found a tab character that violates indentation"]),
        ("a: \x01", ["1:4  is not YAML: control characters are not allowed"]),
        ("a\n---\nb", ["2:1  begins a second document; a rule file is one"]),
        ("- 1", ["1:1 a list stands where a mapping must"]),
        (
            "a: &x 1\nb: *x\n",
            ['1:4 "1" has an anchor (&x); rule files have none', "2:4 nothing is an alias (*x); rule files have none"],
        ),
        (
            "a: !!python/object:os.x 1",
            ['1:4 "1" has a tag (tag:yaml.org,2002:python/object:os.x); rule files have none'],
        ),
        ("a: !!set {b}", ["1:4 a mapping has a tag (tag:yaml.org,2002:set); rule files have none"]),
        (
            "? [a]\n: 1",
            [
                '1:1 a mapping lacks "name"',
                '1:1 a mapping lacks "rules"',
                '1:1 a mapping lacks "version"',
                "1:3 a list can't be a key",
            ],
        ),
        (
            f"{HEAD}  - {{id: a, id: a, why: b, do: [{{remove: X}}]}}\n",
            ['4:13 "id" stands twice; it stood on line 4 already'],
        ),
        (
            f'{HEAD}  - {{id: a, why: b, do: [{{set: {{header: Y, value: "a\\r\\nB: c"}}}}]}}\n',
            ['4:51 "a\\r\\nB: c" has a line break or NUL in it'],
        ),
        (
            f'{HEAD}  - {{id: a, why: b, do: [{{reject: {{status: 400, reason: "a\\nb"}}}}]}}\n',
            ['4:57 "a\\nb" has a line break or NUL in it'],
        ),
        (f"{HEAD}  - {{id: a, why: b, do: [{{remove: }}]}}\n", ["4:35 nothing is not a header name"]),
    ],
)
def test_yaml(text: str, expected: list[str]) -> None:
    assert sorted(told(text)) == sorted(expected)


def test_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("version: 1\nname: café\n".encode("latin-1"))
    with pytest.raises(RuleFileError, match=r"latin\.yaml:2:10: is not UTF-8"):
        load_file(path)


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(f"\ufeff{HEAD}  - {{id: a, why: b, do: [{{remove: X}}]}}\n".replace("\n", "\r\n").encode())
    assert [rule.id for rule in load_file(path).rules] == ["a"]


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuleFileError) as error:
        load_directory_or_files([tmp_path / "none.yaml", tmp_path / "empty"])
    assert [one.what for one in error.value.problems] == [
        "holds no rule file",
        "can't be read: No such file or directory",
    ]
    assert str(error.value).startswith(f"{tmp_path / 'empty'}: holds no rule file")


def test_directory(tmp_path: Path) -> None:
    for name in ("b", "a"):
        text = f"version: 1\nname: set-{name}\nrules: [{{id: r, why: w, do: [{{remove: X}}]}}]\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "notes.txt").write_text("not a rule file")
    assert list(load_directory_or_files([tmp_path])) == ["set-a", "set-b"]
    assert list(load_directory_or_files([tmp_path / "b.yaml", tmp_path])) == ["set-b", "set-a"]
    (tmp_path / "c.yaml").write_text("version: 1\nname: set-a\nrules: [{id: r, why: w, do: [{remove: X}]}]\n")
    with pytest.raises(RuleFileError, match=r'c\.yaml: names its set "set-a", as .*a\.yaml does'):
        load_directory_or_files([tmp_path])


def test_mistakes_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\n")
    (tmp_path / "b.yaml").write_text("name: [1]\n")
    with pytest.raises(RuleFileError) as error:
        load_directory_or_files([tmp_path])
    assert {Path(one.file).name for one in error.value.problems} == {"a.yaml", "b.yaml"}


# Hostile files


def bomb() -> str:
    lines = ['a0: &a0 ["x"]'] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


def one_rule(when: str = "{}", do: str = "remove: X-A") -> str:
    return f"{HEAD}  - {{id: a, why: b, when: {when}, do: [{{{do}}}]}}"


def matching(pattern: str) -> str:
    return one_rule(f"{{header: {{name: X-A, matches: '{pattern}'}}}}")


HOSTILE = {
    "alias bomb": bomb(),
    "deep nesting": "[" * 100_000,
    "deep mapping": "".join([f"{' ' * n}a:\n" for n in range(2000)]),
    "deep conditions": one_rule(f"{'{not: ' * 500}{{}}{'}' * 500}"),
    "1 MB word": f"version: 1\nname: {'a' * 1_000_000}\nrules: []",
    "1 MB value": one_rule(do=f"set: {{header: X-A, value: {'a' * 1_000_000}}}"),
    "1 MB pattern": matching("(" * 1_000_000),
    "exploding pattern": matching("((a{900}){900}){900}"),
    "1 MB key": f"{HEAD}  - {{{'a' * 1_000_000}: 1}}",
    "10,000 unknown keys": HEAD + "".join([f"  - {{id: a{n}, why: b, do: [{{remov: X}}]}}\n" for n in range(10_000)]),
    "100,000 names": one_rule(do=f"remove: [{', '.join(['X'] * 100_000)}]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_soon(name: str) -> None:
    began = perf_counter()
    found = problems(HOSTILE[name])
    assert found
    assert all(len(str(problem)) < 2000 for problem in found)
    assert perf_counter() - began < 30


def test_ten_thousand_rules() -> None:
    rule = "  - {{id: r{0}, why: w, when: {{method: BYE}}, do: [{{set: {{header: X-{0}, value: '{{attempt}}'}}}}]}}\n"
    began = perf_counter()
    assert len(load_text(HEAD + "".join([rule.format(n) for n in range(10_000)]), "many.yaml").rules) == 10_000
    assert perf_counter() - began < 20


def test_catastrophic_pattern_is_harmless() -> None:
    rules = rule_set("remove: X-B", "{header: {name: X-A, matches: '^(a+)+$'}}")
    whole = message(f"X-A: {'a' * 30_000}!\nX-B: 1")
    began = perf_counter()
    assert apply(rules, whole).changes == []
    assert perf_counter() - began < 2


# What is doubtful

DOUBTFUL = """
  - {id: gone, why: w, when: {method: INVITE}, do: [{remove: [X-A, X-B]}]}
  - {id: late, why: w, when: {method: INVITE, header: {name: X-A, present: true}}, do: [{set: {header: X-C, value: 1}}]}
  - {id: other-method, why: w, when: {header: {name: X-A, present: true}}, do: [{set: {header: X-C, value: 1}}]}
  - {id: back, why: w, do: [{set: {header: X-A, value: 1}}]}
  - {id: found-again, why: w, when: {method: INVITE}, do: [{rename: {from: X-A, to: X-D}}]}
  - {id: plain, why: w, when: {direction: a-to-b}, do: [{keep-only: X-D}]}
  - {id: kept, why: w, when: {direction: a-to-b}, do: [{rename: {from: X-D, to: X-E}}]}
  - {id: swept, why: w, when: {direction: a-to-b}, do: [{rename: {from: X-Z, to: X-Y}}]}
  - {id: idle, why: w, when: {header: {name: X-A, matches: '(?P<used>a)(?P<idle>b)'}}, do: [{tag: '{capture.used}'}]}
  - {id: keeps, why: w, do: [{remember: {unused: '1', used: '2'}}, {tag: '{var.used}'}]}
  - {id: end, why: w, when: {method: [INVITE, BYE], message: request}, do: [{reject: {status: 403}}]}
  - {id: after-end, why: w, when: {method: BYE, message: request}, do: [{remove: X-Q}]}
  - {id: responses, why: w, when: {method: BYE, message: response}, do: [{remove: X-Q}]}
  - {id: stop, why: w, do: [{stop: true}]}
  - {id: after-stop, why: w, do: [{remove: X-Q}]}
  - {id: off, why: w, enabled: false, do: [{remove: X-Q}]}
"""


def test_warnings() -> None:
    warnings = load_text(HEAD + DOUBTFUL.lstrip("\n"), "test.yaml").warnings
    assert [str(one).removeprefix("test.yaml:").partition("; ")[0] for one in warnings] == [
        '12:60: warning: "(?P<used>a)(?P<idle>b)" captures idle, which this rule never uses',
        '13:42: warning: "unused" sets a variable that no rule uses, unused',
        '5:10: warning: "late" never finds x-a: the rule gone on line 4 removes it before',
        '11:10: warning: "swept" never finds x-z: the rule plain on line 9 removes it before',
        '15:10: warning: "after-end" is never reached: the rule end on line 14 ends before it',
        '18:10: warning: "after-stop" is never reached: the rule stop on line 17 ends before it',
    ]


def test_captures_and_variables_must_exist() -> None:
    text = """
  - id: a
    why: w
    when: {header: {name: X-A, matches: '(?P<user>.*)'}}
    do: [{tag: '{capture.usr}'}, {note: '{capture.user} {var.none}'}]
  - {id: b, why: w, do: [{tag: '{capture.user}'}]}
"""
    assert told(HEAD + text.lstrip("\n")) == [
        '7:16 "{capture.usr}" names a capture that no pattern of this rule makes, {capture.usr} -> {capture.user}',
        '7:41 "{capture.user} {var.none}" names a variable that nothing sets, {var.none}',
        '8:32 "{capture.user}" names a capture that no pattern of this rule makes, {capture.user}',
    ]


# Includes


def including(folder: Path, **includes: str) -> None:
    for name, inner in includes.items():
        action = f"include: {inner}" if inner else "remove: X-A"
        (folder / f"{name}.yaml").write_text(
            f"version: 1\nname: {name}\nrules: [{{id: r, why: w, do: [{{{action}}}]}}]\n"
        )


def test_includes(tmp_path: Path) -> None:
    including(tmp_path, a="b", b="c", c="")
    before = load_directory_or_files([tmp_path])
    draft = apply_set(before["a"], "X-A: 1\nX-B: 2")
    assert draft == ["rule:c/r"]
    (tmp_path / "c.yaml").write_text((tmp_path / "c.yaml").read_text() + "# changed\n")
    after = load_directory_or_files([tmp_path])
    assert [name for name in before if before[name].version != after[name].version] == ["a", "b", "c"]


def apply_set(rule_set: RuleSet, text: str) -> list[str]:
    whole = message(text)
    draft = Draft(whole)
    rule_set.apply(draft, context())
    return [change.step for change in draft.changes]


def test_includes_that_can_not_be(tmp_path: Path) -> None:
    including(tmp_path, a="b", b="a", c="d")
    with pytest.raises(RuleFileError) as error:
        load_directory_or_files([tmp_path])
    assert [(one.column, one.what) for one in error.value.problems] == [(40, '"d" is no rule set that is loaded')]
    including(tmp_path, c="a")
    with pytest.raises(RuleFileError, match="includes in a circle, or too deep: a > b > a"):
        load_directory_or_files([tmp_path])
    with pytest.raises(RuleFileError, match='"b" is no rule set that is loaded'):
        load_text((tmp_path / "a.yaml").read_text(), "a.yaml")


@pytest.mark.parametrize("depth", [8, 12])
def test_includes_that_multiply_are_bounded(tmp_path: Path, depth: int) -> None:
    for number in range(depth):
        actions = ", ".join([f"{{include: s{number + 1}}}"] * 10) if number < depth - 1 else "{remove: X-A}"
        text = f"version: 1\nname: s{number}\nrules: [{{id: r, why: w, do: [{actions}]}}]\n"
        (tmp_path / f"s{number}.yaml").write_text(text)
    began = perf_counter()
    with pytest.raises(RuleFileError, match="includes"):
        load_directory_or_files([tmp_path])
    assert perf_counter() - began < 5
