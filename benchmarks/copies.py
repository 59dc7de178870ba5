"""Copies of the tree to measure: one in pure Python, one with the core compiled. The tree itself is left alone."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["fingerprint", "make_copy"]

ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = ("proxy", "rules")
_FILES = ("hatch_build.py", "pyproject.toml")
_LEFT_OUT = shutil.ignore_patterns("*.so", "__pycache__")


def fingerprint() -> str:
    """Tells one state of Trunkline's source from another."""
    mark = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                mark.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return mark.hexdigest()[:12]


def make_copy(into: Path, *, compiled: bool) -> Path:
    """A copy of the tree as it is now; one that is there already is used again.

    Raises subprocess.CalledProcessError when the core can't be compiled (no C compiler, for example); what the
    compiler said is on stderr.
    """
    kind = "compiled" if compiled else "pure"
    copy = into / f"{kind}-{fingerprint()}"
    if copy.exists():
        return copy
    for old in into.glob(f"{kind}-*"):
        shutil.rmtree(old)
    making = into / f"making-{kind}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for folder in _FOLDERS:
        shutil.copytree(ROOT / folder, making / folder, ignore=_LEFT_OUT)
    for file in _FILES:
        shutil.copy2(ROOT / file, making)
    if compiled:
        print("compiling the core in a copy (a minute or two) ...", flush=True)
        subprocess.run([sys.executable, "hatch_build.py"], cwd=making, check=True, stdout=subprocess.DEVNULL)
    making.rename(copy)
    return copy
