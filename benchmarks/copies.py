"""Copies of the tree to measure: one in pure Python, one with the core compiled. The tree itself is left alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import hatch_build

__all__ = ["fingerprint", "make_copy"]

ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = ("proxy", "rules")
_LEFT_OUT = shutil.ignore_patterns("*.so", "__pycache__")


@cache
def fingerprint() -> str:
    """Tells one state of Trunkline's source from another; that at the first call, should it be edited meanwhile."""
    return _hash(path for folder in _FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml"))


def make_copy(into: Path, *, compiled: bool) -> Path:
    """A copy of the tree as it is now; one that is there already is used again, and so is a core that is compiled.

    Raises subprocess.CalledProcessError when the core can't be compiled (no C compiler, for example); what the
    compiler said is on stderr.
    """
    kind = "compiled" if compiled else "pure"
    copy = into / f"{kind}-{fingerprint()}"
    if copy.exists():
        return copy
    making = into / f"making-{kind}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for folder in _FOLDERS:
        shutil.copytree(ROOT / folder, making / folder, ignore=_LEFT_OUT)
    if compiled:
        shutil.copytree(_core(into), making, dirs_exist_ok=True)
    for old in into.glob(f"{kind}-*"):
        shutil.rmtree(old)
    making.rename(copy)
    return copy


def _core(into: Path) -> Path:
    """A folder with the extension modules of the core as it is now."""
    core = into / f"core-{_hash((*map(ROOT.joinpath, hatch_build.modules()), ROOT / 'hatch_build.py'))}"
    if not core.exists():
        print("compiling the core in a copy (a minute or two on a quiet machine) ...", flush=True)
        for old in into.glob("core-*"):
            shutil.rmtree(old)
        making = into / "making-core"
        shutil.rmtree(making, ignore_errors=True)
        hatch_build.compile_core(making)
        making.rename(core)
    return core


def _hash(files: Iterable[Path]) -> str:
    mark = hashlib.sha256()
    for path in sorted(files):
        mark.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return mark.hexdigest()[:12]
