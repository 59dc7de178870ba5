"""Coverage-guided runs: `python -m tests.fuzz.run TARGET[,TARGET…] SECONDS [DIRECTORY]`, one after another.

Finds go to the directory (default: the system's one for temporary files) as `crash-…`; new inputs that reach new code
are kept there too, as the corpus of the next run. The seeds in `tests/fuzz/corpus` are only read.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy"]):
    from tests.fuzz.targets import CORPUS, TARGETS

__all__ = ["main"]


def main() -> None:
    """Fuzz until the time is over or something is found; then the exit code is not 0."""
    names, seconds = sys.argv[1].split(","), int(sys.argv[2])
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="fuzz-"))
    for name in names[:-1]:
        # libFuzzer ends its process; to load everything with its counters takes longer than a short run.
        child = os.fork()
        if not child:
            _fuzz(name, seconds, folder / name)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{name}: see above")
    _fuzz(names[-1], seconds, folder / names[-1])


def _fuzz(name: str, seconds: int, found: Path) -> None:
    print(f"== {name}", flush=True)  # noqa: T201
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/",
        f"-dict={CORPUS / 'sip.dict'}",
    ]
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
