"""Settings: flags over environment (`TRUNKLINE_*`) over a YAML file over defaults, checked before anything starts."""

from proxy.settings.loading import FLAGS, load, load_rules, rule_paths, shipped_rules
from proxy.settings.model import Settings
from proxy.settings.sources import SettingsError
from proxy.settings.values import NAMED_NETWORKS

__all__ = ["FLAGS", "NAMED_NETWORKS", "Settings", "SettingsError", "load", "load_rules", "rule_paths", "shipped_rules"]
