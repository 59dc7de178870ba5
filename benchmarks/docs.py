"""Puts the figures of a session into the pages that show them: `python -m benchmarks.docs [FOLDER]`.

A page marks where a table or plot goes by `<!-- figures: NAME -->` and `<!-- end of figures -->`; what stands between
them is replaced. The plots are copied to `docs/img`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks.copies import ROOT
from benchmarks.goals import capacity_table, goals_table, readme_table
from benchmarks.plots import PLOTS
from benchmarks.report import OUT, TABLES, Report

__all__ = ["PAGES", "fill"]

PAGES = (ROOT / "README.md", ROOT / "docs" / "capacity.md")
_NOTHING = "Not measured yet."
_IMAGES = ROOT / "docs" / "img"
_BLOCK = re.compile(r"<!-- figures: ([a-z-]+) -->\n.*?<!-- end of figures -->", re.DOTALL)
_ALL: Mapping[str, Callable[[Report], str]] = {
    **TABLES,
    "capacity": capacity_table,
    "goals": goals_table,
    "readme": readme_table,
}


def fill(page: str, report: Report, plots: Collection[str] = tuple(PLOTS)) -> str:
    """The page with the tables of a report, and those of its plots that are there.

    Raises KeyError for a mark that names neither.
    """

    def block(found: re.Match[str]) -> str:
        name = found[1]
        plot = name.removeprefix("plot-")
        if plot == name:
            text = _ALL[name](report) or _NOTHING
        else:
            text = f"![{PLOTS[plot]}](img/bench-{plot}.png)" if plot in plots else _NOTHING
        return f"<!-- figures: {name} -->\n{text}\n<!-- end of figures -->"

    return _BLOCK.sub(block, page)


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description="Put the figures of a session into README.md and docs/capacity.md.")
    parser.add_argument("folder", type=Path, nargs="?", default=OUT)
    folder: Path = parser.parse_args().folder
    report: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    plots = [name for name in PLOTS if (folder / f"{name}.png").exists()]
    for page in PAGES:
        page.write_text(fill(page.read_text(), report, plots))
        print(f"written: {page.relative_to(ROOT)}")
    for name in plots:
        shutil.copy2(folder / f"{name}.png", _IMAGES / f"bench-{name}.png")
        print(f"copied: docs/img/bench-{name}.png")


if __name__ == "__main__":
    main()
