"""From flags to everything that a start needs, with all mistakes found before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.b2bua.config import StackConfig
from proxy.rewrite.engine import RuleSet
from proxy.settings import Settings, SettingsError, load, load_rules, rule_paths
from proxy.transport.errors import TlsError
from proxy.transport.tls import client_context, server_context

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a start needs: the settings, the rule sets by name with the default's name, and what the stack is told."""

    settings: Settings
    rules: Mapping[str, RuleSet]
    default_rules: str
    config: StackConfig

    def load_rules(self) -> tuple[Mapping[str, RuleSet], str]:
        """The rule sets as they stand in their files now, and the default's name. Raises SettingsError."""
        rules, default = load_rules(self.settings)
        self.settings.stack_config(rules, default)
        return rules, default

    def rule_paths(self) -> list[Path]:
        """All rule files, and the directories that hold some."""
        return rule_paths(self.settings)


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
    return Prepared(settings, rules, default, config)


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
