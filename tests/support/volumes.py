"""Volumes of Kubernetes: ConfigMaps and Secrets as files, and how they change under a running process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["publish"]


def publish(volume: Path, files: Mapping[str, str]) -> None:
    """Put files into a volume, or others in their place, all at once, in the steps of the kubelet's atomic writer.

    The files lie in a directory of their own, which the link `..data` leads to, and what is seen are links by way of
    that one. A change makes another directory, swaps the one link, and removes the directory of before.
    """
    volume.mkdir(exist_ok=True)
    data = volume / "..data"
    before = volume / os.readlink(data) if data.is_symlink() else None
    content = Path(tempfile.mkdtemp(prefix="..", dir=volume))
    for name, text in files.items():
        (content / name).write_text(text)
    (volume / "..data_tmp").symlink_to(content.name)
    (volume / "..data_tmp").rename(data)
    for name in files:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(os.path.join("..data", name))
    if before is not None:
        shutil.rmtree(before)
