"""docs/deploy.md and the files that it hands out: their addresses and ports are those of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from proxy.settings import NAMED_NETWORKS
from tests.deploy.manifests import ROOT

PAGE = (ROOT / "docs" / "deploy.md").read_text()
RANGE = re.compile(r"\b\d+\.\d+\.\d+\.\d+/\d+\b")
TWILIO_MEDIA = "168.86.128.0/18"


def section(title: str) -> str:
    """The text below a heading."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def test_every_range_on_the_page_is_one_that_the_code_knows() -> None:
    known = {*NAMED_NETWORKS["twilio"], *NAMED_NETWORKS["openai"], TWILIO_MEDIA}
    assert set(RANGE.findall(PAGE)) == known
    assert set(RANGE.findall(section("Who may call"))) == {*NAMED_NETWORKS["twilio"], *NAMED_NETWORKS["openai"]}
    (ranges,) = re.findall(r"^ranges=(\S+)$", section("Public address, NAT and clouds"), re.MULTILINE)
    assert set(ranges.split(",")) == set(NAMED_NETWORKS["twilio"])


def test_the_packet_filter_lets_the_same_ranges_in() -> None:
    filters = (ROOT / "deploy" / "nftables.conf").read_text()
    assert set(RANGE.findall(filters)) == set(NAMED_NETWORKS["twilio"])
    assert set(re.findall(r"dport \{ (.+?) \}", filters)) == {"5060, 5061"}


def test_the_hook_of_certbot_hands_over_what_it_is_given(tmp_path: Path) -> None:
    hook = (ROOT / "deploy" / "certbot-hook").read_text()
    lineage, place = tmp_path / "lineage", tmp_path / "tls"
    lineage.mkdir()
    group = tmp_path.stat().st_gid
    here = hook.replace("place=/etc/trunkline/tls", f"place='{place}'").replace("-g trunkline", f"-g {group}")
    for version in ("first", "second"):
        for name in ("fullchain.pem", "privkey.pem"):
            (lineage / name).write_text(f"{name} {version}")
        subprocess.run(["sh", "-c", here], env={"RENEWED_LINEAGE": str(lineage), "PATH": "/usr/bin:/bin"}, check=True)
        assert {path.name: path.read_text() for path in place.iterdir()} == {
            name: f"{name} {version}" for name in ("fullchain.pem", "privkey.pem")
        }
    assert oct((place / "privkey.pem").stat().st_mode) == "0o100640"


@pytest.mark.parametrize("name", ["tls.certificate", "tls.key"])
def test_the_hook_writes_what_the_settings_of_the_page_name(name: str) -> None:
    (path,) = re.findall(rf"^  {name.partition('.')[2]}: (\S+)$", section("Debian and Ubuntu"), re.MULTILINE)
    directory, _, file = path.rpartition("/")
    hook = (ROOT / "deploy" / "certbot-hook").read_text()
    assert f"place={directory}\n" in hook
    assert file in hook
