"""Rule sets as people name them on the command line, and which way recorded messages go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxy.recordings import Recorded
from proxy.rewrite.engine import A_TO_B, B_TO_A, RuleSet
from proxy.rewrite.nodes import nearest
from proxy.rulefiles import RuleFileError, link, load_file
from proxy.settings import SettingsError, shipped_rules
from proxy.settings.model import DEFAULT_RULES
from proxy.sip.errors import SipError
from proxy.sip.message import Message, Request

__all__ = ["Directions", "choose_rule_set"]


def choose_rule_set(text: str = DEFAULT_RULES) -> RuleSet:
    """The rule set of a file, or the shipped one of a name. A file may include shipped sets, and those beside it.

    Raises SettingsError with every mistake.
    """
    path = Path(text)
    given = path if path.is_file() else None
    files = sorted(shipped_rules().glob("*.yaml"))
    if given is not None:
        files = [*files, *[one for one in sorted(path.parent.glob("*.yaml")) if one != path and _names_set(one)], path]
    sets: dict[str, RuleSet] = {}
    chosen: RuleSet | None = None
    problems: list[str] = []
    for file in files:
        try:
            loaded = load_file(file)
        except RuleFileError as error:
            if file == given or given is None:
                problems += [str(problem) for problem in error.problems]
            continue
        sets[loaded.name] = loaded
        if file == given or (given is None and loaded.name == text):
            chosen = loaded
    if not problems and chosen is None:
        meant = nearest(text, sets)
        hint = f"; did you mean {meant}?" if meant else ""
        problems.append(f"{text} is neither a rule file nor the name of a shipped set ({', '.join(sets)}){hint}")
    if not problems:
        problems += [str(problem) for problem in link(sets)]
    if problems:
        raise SettingsError(problems)
    assert chosen is not None
    return chosen


def _names_set(path: Path) -> bool:
    """Whether a YAML file looks like a rule file: other files may lie beside it."""
    try:
        return any(line.startswith("rules:") for line in path.read_text("utf-8", "replace").splitlines())
    except OSError:
        return False


class Directions:
    """Tells which way recorded messages go: who sent the INVITE of a call is the caller.

    Args:
        ours: addresses of Trunkline; what it sent itself is left out, and where it sent the INVITE, what comes back
            comes from the target.
    """

    def __init__(self, ours: Sequence[str] = ()) -> None:
        self._ours = frozenset(ours)
        self._callers: dict[str, str] = {}

    def of(self, recorded: Recorded, message: Message) -> str | None:
        """`a-to-b` or `b-to-a`; None for what Trunkline sent itself."""
        if recorded.direction:
            return recorded.direction
        is_request = isinstance(message, Request)
        if not recorded.sender:
            return A_TO_B if is_request else B_TO_A
        try:
            call_id = message.call_id
        except SipError:
            call_id = ""
        if isinstance(message, Request) and message.method == "INVITE":
            self._callers.setdefault(call_id, recorded.sender)
        caller = self._callers.get(call_id, recorded.sender if is_request else recorded.receiver)
        if recorded.sender.rpartition(":")[0] in self._ours:
            return None
        if caller.rpartition(":")[0] in self._ours:
            return B_TO_A
        return A_TO_B if recorded.sender == caller else B_TO_A
