"""The soak, shortened: memory comes back and nothing is left behind. `make soak` runs it for ten minutes."""

from pathlib import Path

import pytest

from tests.soak.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_everything_comes_back_to_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = await soak(tmp_path, 14.0, "--no-store", rate=20.0, warm_up_s=14.0)
    with capsys.disabled():
        print("\n" + result.text())  # noqa: T201
    assert not result.left
    assert result.before.tables["calls"] == 0
    assert result.answered > 0.7 * result.calls
    assert result.growth < 0.05
