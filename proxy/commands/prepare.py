"""From flags to everything that a start needs, with all mistakes found before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxy.b2bua.config import StackConfig
from proxy.rewrite.engine import RuleSet
from proxy.settings import Settings, SettingsError, load, load_rules, rule_paths
from proxy.settings.reloading import TakenUp, take_up
from proxy.transport.errors import TlsError
from proxy.transport.tls import client_context, server_context

__all__ = ["Current", "Prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a start needs: the settings, the rule sets by name with the default's name, what the stack is told, and the
    flags that were given."""

    settings: Settings
    rules: Mapping[str, RuleSet]
    default_rules: str
    config: StackConfig
    flags: Mapping[str, Any]


class Current:
    """Settings and rules of a running process, as it has taken them up last.

    Attributes:
        prepared: what it runs with.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def rule_paths(self) -> list[Path]:
        """All rule files, and the directories that hold some."""
        return rule_paths(self.prepared.settings)

    def load_rules(self) -> tuple[Mapping[str, RuleSet], str]:
        """The rule sets as they stand in their files now, and the default's name. Raises SettingsError."""
        settings = self.prepared.settings
        rules, default = load_rules(settings)
        self.prepared = replace(
            self.prepared, rules=rules, default_rules=default, config=settings.stack_config(rules, default)
        )
        return rules, default

    def load_settings(self) -> TakenUp:
        """Take up the settings as they stand in file and environment now, but for those that need a restart. Raises
        SettingsError with every mistake, and nothing is changed. Rule files are read again only if others are named."""
        prepared = self.prepared
        taken = take_up(prepared.settings, load(prepared.flags))
        problems = _tls_problems(taken.settings)
        if problems:
            raise SettingsError(problems)
        rules, default = prepared.rules, prepared.default_rules
        if not {"rules", "default_rules"}.isdisjoint(taken.changed):
            rules, default = load_rules(taken.settings)
        config = taken.settings.stack_config(rules, default)
        self.prepared = Prepared(taken.settings, rules, default, config, prepared.flags)
        return taken


def prepare(flags: Mapping[str, Any]) -> Prepared:
    """Read and check settings, certificates and rules. Raises SettingsError with every mistake."""
    settings = load(flags)
    problems = _tls_problems(settings)
    try:
        rules, default = load_rules(settings)
        config = settings.stack_config(rules, default)
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from None
    if problems:
        raise SettingsError(problems)
    return Prepared(settings, rules, default, config, flags)


def _tls_problems(settings: Settings) -> list[str]:
    """What is wrong with certificates and keys, found by loading them."""
    tls = settings.tls_settings()
    problems: list[str] = []
    for make, needed in ((server_context, tls.certificate is not None), (client_context, True)):
        try:
            if needed:
                make(tls)
        except TlsError as error:
            problems.append(f"tls: {error}")
    return list(dict.fromkeys(problems))
