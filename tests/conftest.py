"""Fixtures: one tiny run is made per session and shared by every test that needs a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def run_command(
    *arguments: str, timeout: float = 600, env: dict | None = None
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=timeout, cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Folder with ``bundle`` and ``report`` of a tiny run, made by the command that the README names."""
    folder = tmp_path_factory.mktemp("tiny")
    done = run_command(
        "train.py",
        "--recipe",
        "tiny",
        "--offline",
        "--output",
        str(folder / "bundle"),
        "--report",
        str(folder / "report"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def bundle(tiny) -> Path:
    return tiny / "bundle"


@pytest.fixture(scope="session")
def assistant(bundle):
    from symptomchat import load

    return load(bundle)


def pytest_collection_modifyitems(items):
    """Fast tests first: those that need no trained bundle, then the rest, the browser last."""
    slow = {"tiny", "bundle", "assistant"}
    items.sort(key=lambda item: ("page" in item.fixturenames, bool(slow & set(item.fixturenames))))
