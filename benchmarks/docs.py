"""Puts the figures of a session into the pages that show them: `python -m benchmarks.docs [FOLDER]`.

A page marks where a table goes by `<!-- figures: NAME -->` and `<!-- end of figures -->`; what stands between them is
replaced. The plots are copied to `docs/img`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.copies import ROOT
from benchmarks.goals import capacity_table, goals_table, readme_table
from benchmarks.plots import PLOTS
from benchmarks.report import OUT, TABLES, Report

__all__ = ["PAGES", "fill"]

PAGES = (ROOT / "README.md", ROOT / "docs" / "capacity.md")
_IMAGES = ROOT / "docs" / "img"
_BLOCK = re.compile(r"<!-- figures: ([a-z]+) -->\n.*?<!-- end of figures -->", re.DOTALL)
_ALL: Mapping[str, Callable[[Report], str]] = {
    **TABLES,
    "capacity": capacity_table,
    "goals": goals_table,
    "readme": readme_table,
}


def fill(page: str, report: Report) -> str:
    """The page with the tables of a report. Raises KeyError for a mark that names no table."""

    def table(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- figures: {name} -->\n{_ALL[name](report)}\n<!-- end of figures -->"

    return _BLOCK.sub(table, page)


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description="Put the figures of a session into README.md and docs/capacity.md.")
    parser.add_argument("folder", type=Path, nargs="?", default=OUT)
    folder: Path = parser.parse_args().folder
    report: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    for page in PAGES:
        page.write_text(fill(page.read_text(), report))
        print(f"written: {page.relative_to(ROOT)}")
    for name in PLOTS:
        plot = folder / f"{name}.png"
        if plot.exists():
            shutil.copy2(plot, _IMAGES / f"bench-{name}.png")
            print(f"copied: docs/img/bench-{name}.png")


if __name__ == "__main__":
    main()
