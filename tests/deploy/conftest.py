"""The manifests, each directory built once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.deploy.manifests import Objects, build_objects


@pytest.fixture(scope="session")
def build() -> Callable[[str], Objects]:
    """A function that builds a directory of `k8s/`; each one once."""
    done: dict[str, Objects] = {}

    def run(name: str) -> Objects:
        if name not in done:
            done[name] = build_objects(name)
        return done[name]

    return run
