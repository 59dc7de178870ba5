"""Settings and rule sets from where they stand, with every mistake in one go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import RuleFileError, link, load_file, rule_files
from proxy.settings.model import DEFAULT_RULES, NO_ADDRESS, NO_PROJECT, Settings
from proxy.settings.sources import EnvironmentSource, FileSource, SettingsError, explain

__all__ = ["FLAGS", "load", "load_rules", "rule_paths", "shipped_rules"]

# Settings and the flags of `trunkline run` that set them.
FLAGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "config": "--config",
        "listen": "--listen",
        "public_address": "--public-address",
        "openai_project_id": "--project-id",
        "targets": "--target",
        "allow": "--allow",
        "rules": "--rules",
        "tls.certificate": "--tls-certificate",
        "tls.key": "--tls-key",
        "tls.ca_file": "--tls-ca",
        "events_file": "--events",
        "store.path": "--store",
        "store.enabled": "--no-store",
        "admin.listen": "--admin",
        "log_level": "--log-level",
        "workers": "--workers",
    }
)


def shipped_rules() -> Path:
    """The directory of the rule sets that come with Trunkline: `rules/` of a checkout, or the copy inside a wheel."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "rules"
    return beside if (beside / f"{DEFAULT_RULES}.yaml").is_file() else package / "_shipped_rules"


def load_rules(settings: Settings) -> tuple[dict[str, RuleSet], str]:
    """The rule sets by name, shipped ones and those of `settings.rules`, and the name of the default one.

    Raises SettingsError with every mistake in every file.
    """
    problems: list[str] = []
    sets: dict[str, RuleSet] = {}
    default = settings.default_rules
    paths = [(path, False) for path in sorted(shipped_rules().glob("*.yaml"))]
    for text in settings.rules:
        files, wrong = rule_files(Path(text))
        problems += [str(problem) for problem in wrong]
        paths += [(path, True) for path in files]
    for path, given in paths:
        try:
            loaded = load_file(path)
        except RuleFileError as error:
            problems += [str(problem) for problem in error.problems]
            continue
        sets[loaded.name] = loaded
        if given and default is None:
            default = loaded.name
    if not problems:
        problems += [str(problem) for problem in link(sets)]
    if problems:
        raise SettingsError(problems)
    return sets, default or DEFAULT_RULES


def rule_paths(settings: Settings) -> list[Path]:
    """The rule files of `settings.rules` and the shipped ones, and the directories, where files may come and go."""
    paths: list[Path] = []
    for path in (shipped_rules(), *map(Path, settings.rules)):
        if path.is_dir():
            paths.append(path)
        paths += rule_files(path)[0]
    return paths


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (nested like the models, only those given), environment, file and defaults.

    Raises SettingsError with every mistake.
    """
    flags = flags or {}
    try:
        return Settings(**flags)
    except ValidationError as error:
        named = flags.get("config") or os.environ.get("TRUNKLINE_CONFIG")
        path = Path(named) if named else None
        problems = explain(error, Settings, flags, FLAGS, path)
        # The check of the whole does not run when a part is wrong; what is missing is worth saying all the same.
        given = {*flags, *EnvironmentSource(Settings)(), *FileSource(Settings, path)()}
        if given.isdisjoint(("openai_project_id", "targets")):
            problems.append(NO_PROJECT)
        if given.isdisjoint(("public_address", "listen")):
            problems.append(NO_ADDRESS)
        raise SettingsError(list(dict.fromkeys(problems))) from None
