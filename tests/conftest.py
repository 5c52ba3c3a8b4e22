"""Fixtures: one tiny run is made per session and shared by every test that needs a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="session", autouse=True)
def tiny_run(request, tmp_path_factory) -> Iterator[tuple[Path, subprocess.Popen] | None]:
    """The tiny run, started before the first test, so that it goes on beside the tests that need no bundle."""
    if not any("tiny" in item.fixturenames for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("tiny")
    command = ["--recipe", "tiny", "--offline", "--output", folder / "bundle", "--report", folder / "report"]
    with (folder / "output.txt").open("wb") as output:
        run = subprocess.Popen(
            [sys.executable, "train.py", *map(str, command)], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
    yield folder, run
    run.kill()
    run.wait()


@pytest.fixture(scope="session")
def tiny(tiny_run) -> Path:
    """Folder with ``bundle`` and ``report`` of a tiny run, made by the command that the README names."""
    folder, run = tiny_run
    code = run.wait(timeout=600)
    assert code == 0, (folder / "output.txt").read_text(encoding="utf-8", errors="replace")[-6000:]
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
    items.sort(key=lambda item: ("page" in item.fixturenames, "tiny" in item.fixturenames))
