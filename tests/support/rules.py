"""The rule sets that are shipped."""

from functools import cache
from pathlib import Path

from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_file

__all__ = ["shipped"]

_FOLDER = Path(__file__).resolve().parents[2] / "rules"


@cache
def shipped(name: str = "twilio-openai") -> RuleSet:
    """A shipped rule set by its name."""
    return load_file(_FOLDER / f"{name}.yaml")
