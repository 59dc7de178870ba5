"""The simulators share nothing with the product but messages, descriptions and transactions."""

import ast
from pathlib import Path

import proxy.sim

ALLOWED = ("proxy.sim", "proxy.sip", "proxy.sdp", "proxy.transaction")


def test_imports() -> None:
    imported = {
        node.module
        for path in Path(proxy.sim.__path__[0]).glob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("proxy")
    }
    assert {".".join(name.split(".")[:2]) for name in imported} == set(ALLOWED)
