"""The image's recipe and the systemd unit, as far as text can be wrong. `scripts/prove-image` runs the recipe."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import hatch_build
from proxy.cli import BAD_SETTINGS

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "Dockerfile").read_text()
UNIT = [line for line in (ROOT / "deploy" / "trunkline.service").read_text().splitlines() if not line.startswith("#")]


def last(instruction: str) -> str:
    """The arguments of the last instruction of a kind."""
    found: list[str] = re.findall(rf"^{instruction} (.+?)(?<!\\)$", RECIPE, re.MULTILINE | re.DOTALL)
    return found[-1]


def test_the_linter_has_nothing_to_say() -> None:
    command = [str(Path(sys.executable).with_name("hadolint")), "--format", "json", "Dockerfile"]
    assert json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=False).stdout) == []


def test_the_image_needs_no_root_and_no_shell() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))
    assert json.loads(last("ENTRYPOINT")) == ["trunkline"]
    assert json.loads(last("CMD")) == ["run"]
    assert json.loads(last("HEALTHCHECK").partition("CMD ")[2])[0] == "trunkline"
    assert last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(last("VOLUME")) == ["/var/lib/trunkline"]
    assert re.findall(r"^FROM (\S+)", RECIPE, re.MULTILINE) == ["${BASE}", "python", "python"], "one argument pins all"


def test_what_the_build_reads_is_in_its_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hatch = project["tool"]["hatch"]["build"]
    hooks = hatch["targets"]["wheel"].get("hooks", {}) | hatch.get("hooks", {})
    needed = {"pyproject.toml", *hatch["targets"]["wheel"]["only-include"], *project["project"]["license-files"]}
    needed |= {hook.get("path", "hatch_build.py") for name, hook in hooks.items() if name == "custom"}
    needed |= {word.partition("/")[0] for word in re.findall(r"requirements/\S+", RECIPE)}
    assert needed <= allowed


@pytest.mark.parametrize("lock", re.findall(r"-r (\S+\.lock)", RECIPE))
def test_every_package_of_the_image_is_the_one_that_is_tested(lock: str) -> None:
    known = (ROOT / "requirements" / "dev.lock").read_text()
    pins = re.findall(r"^([\w.-]+==\S+)", (ROOT / lock).read_text(), re.MULTILINE)
    assert pins
    assert [pin for pin in pins if f"\n{pin} " not in known] == []


def imports(path: Path) -> set[str]:
    """The names of all modules that a file imports, and of what might be a module among what it imports from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) + "." if node.level else ""
            found |= {f"{package}{node.module}", *[f"{package}{node.module}.{alias.name}" for alias in node.names]}
    return found


def test_what_the_core_imports_is_there_when_the_image_compiles_it() -> None:
    # The compiler looks into all that the core imports, directly or not.
    left, seen, others = {ROOT / path for path in hatch_build.modules()}, set[Path](), set[str]()
    while left:
        path = left.pop()
        seen.add(path)
        found = imports(path)
        others |= {name.partition(".")[0] for name in found}
        left |= {file for name in found if (file := ROOT / f"{name.replace('.', '/')}.py").exists()} - seen
    # mypy is told to do without the types of RE2; `compression` is in the standard library of later versions.
    others -= sys.stdlib_module_names | {"proxy", "re2", "compression"}
    lock = (ROOT / "requirements" / "compile.lock").read_text()
    packages = {"backports": "backports-zstd"}
    assert others >= {"orjson", "backports"}
    assert [name for name in others if f"\n{packages.get(name, name)}==" not in lock] == []


def unit(name: str) -> list[str]:
    """The values of a setting of the unit."""
    return [value for key, _, value in (line.partition("=") for line in UNIT) if key == name]


def test_the_unit_lets_calls_end_and_gives_up_on_bad_settings() -> None:
    example = re.search(
        r"```yaml\n# /etc/trunkline/trunkline.yaml\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.S
    )
    assert example is not None
    settings = yaml.safe_load(example[1])
    (limit_s,) = unit("TimeoutStopSec")
    assert settings["drain_s"] + 10 < int(limit_s)
    assert unit("KillMode") == ["mixed"], "workers are told by their supervisor"
    assert unit("RestartPreventExitStatus") == [str(BAD_SETTINGS)]
    assert unit("StateDirectory") == ["trunkline"]
    # The limit of open files is read and raised at the start.
    assert not any("@resources" in value for value in unit("SystemCallFilter"))
    (start,) = unit("ExecStart")
    assert start == "/opt/trunkline/bin/trunkline run --config /etc/trunkline/trunkline.yaml"
