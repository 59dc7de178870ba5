"""Compiles the pure core with mypyc into the wheel, when TRUNKLINE_COMPILE=1 asks for it.

The source stays the same and works without it: the core (`sip`, `sdp`, `transaction`, `dialog`, `b2bua`, what runs per
message of `rewrite`, and `audit.records`) does no I/O and has full types, which is what mypyc wants; so have masking
and what makes rows of events for the call store.

`python hatch_build.py` compiles it in place, `python hatch_build.py clean` removes the result.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
# The last two for their types alone.
TOOLS = ("mypy>=1.13", "setuptools>=70", "orjson>=3.10", "backports.zstd>=1.0; python_version < '3.14'")
PACKAGES = ("sip", "sdp", "transaction", "dialog", "b2bua", "rewrite")
# Of other packages, what is pure and runs for each call or message.
SINGLE = (
    "audit/phone.py",
    "audit/plain.py",
    "audit/records.py",
    "audit/redact.py",
    "diagnosis/features.py",
    "storage/fold.py",
    "storage/names.py",
    "storage/rows.py",
    "storage/shapes.py",
    "storage/timeline.py",
)
# What only reads rule files: its time does not matter.
COLD = frozenset(
    "cases compiler explain names nodes patterns reach replace_actions schema snippet templates __init__".split()
)
SETUP = """
import sys
from setuptools import setup
from mypyc.build import mypycify
files = sys.argv.pop().split(",")
setup(name="trunkline-core", packages=[], ext_modules=mypycify(files, opt_level="2", debug_level="0", multi_file=True))
"""
CONFIG = (
    "[mypy]\nstrict = True\nmypy_path = .\nexplicit_package_bases = True\n[mypy-re2]\nignore_missing_imports = True\n"
)


def modules() -> list[str]:
    """The files to compile, relative to the root."""
    found = [
        path
        for package in PACKAGES
        for path in sorted((ROOT / "proxy" / package).glob("*.py"))
        if path.stem != "__init__" and not (package == "rewrite" and path.stem in COLD)
    ]
    return [str(path.relative_to(ROOT)) for path in (*found, *[ROOT / "proxy" / name for name in SINGLE])]


def compile_core(into: Path) -> list[Path]:
    """Compile, and put the extension modules below a folder as they lie below the root. Returns their paths in it.

    The work is done on a copy: setuptools would read `pyproject.toml`, and mypyc leaves much behind.
    """
    with tempfile.TemporaryDirectory(prefix="trunkline-compile-") as folder:
        work = Path(folder)
        shutil.copytree(ROOT / "proxy", work / "proxy", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        (work / "setup.py").write_text(SETUP)
        (work / "mypy.ini").write_text(CONFIG)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", jobs, ",".join(modules())],
            cwd=work,
            check=True,
        )
        made: list[Path] = []
        for path in (*work.glob("*.so"), *(work / "proxy").rglob("*.so")):
            target = into / path.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            made.append(path.relative_to(work))
        return made


def compiled(root: Path = ROOT) -> list[Path]:
    """The extension modules that lie in a tree."""
    return [*root.glob("*__mypyc.*.so"), *(root / "proxy").rglob("*.so")]


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled core to a wheel."""

    def dependencies(self) -> list[str]:
        """What compiling needs beside a C compiler."""
        return list(TOOLS) if self._wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless the wheel is an editable one or nobody asked."""
        if not self._wanted() or version == "editable":
            return
        into = Path(self.directory) / "compiled"
        shutil.rmtree(into, ignore_errors=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(into / path): str(path) for path in compile_core(into)})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing beside the wheel."""
        shutil.rmtree(Path(self.directory) / "compiled", ignore_errors=True)

    def _wanted(self) -> bool:
        return self.target_name == "wheel" and os.environ.get("TRUNKLINE_COMPILE", "") not in ("", "0")


if __name__ == "__main__":
    for old in compiled():
        old.unlink()
    if sys.argv[1:] != ["clean"]:
        print(f"{len(compile_core(ROOT))} modules compiled")  # noqa: T201
