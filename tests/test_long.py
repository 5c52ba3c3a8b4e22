"""What takes minutes: interruption and the talk's demo."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import ROOT, run_command

pytestmark = pytest.mark.long


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tiny, tmp_path):
    output = tmp_path / "bundle"
    command = [
        "train.py",
        "--recipe",
        "tiny",
        "--offline",
        "--output",
        str(output),
        "--report",
        str(tmp_path / "report"),
    ]
    for sign in ("teacher_state.npz", "student_state.npz"):
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 300
        while not (output / "work" / sign).is_file() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert run_command(*command).returncode == 0
    for name in ("teacher", "student", "pruned"):
        with (
            np.load(tiny / "bundle" / "work" / f"{name}.npz") as a,
            np.load(output / "work" / f"{name}.npz") as b,
        ):
            worst = max(float(np.abs(a[key] - b[key]).max()) for key in a.files)
        assert worst < 1e-4, (name, worst)


def test_the_talk_s_demo_runs_and_shows_its_hallucinations(tmp_path):
    settings = ["talk.layers=2", "talk.hidden=96", "talk.heads=4", "teaching.epochs=2", "data.conditions=40"]
    sets = [part for setting in settings for part in ("--set", setting)]
    done = run_command(
        "train.py",
        "--recipe",
        "talk",
        "--offline",
        *sets,
        "--output",
        str(tmp_path / "run"),
        "--report",
        str(tmp_path / "report"),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads((tmp_path / "run" / "work" / "samples.json").read_text())
    assert set(summary) == {"seen", "never seen"}
    assert "What it says" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_a_user_s_own_csv_trains_and_is_answered(tmp_path):
    rows = ["Disease,Signs"] + [
        f'Zorb {i} fever,"glowing ears {i}, puking, blue toes {i}"' for i in range(12)
    ]
    (tmp_path / "own.csv").write_text("\n".join(rows))
    done = run_command(
        "train.py", "--recipe", "tiny", "--offline", "--data", str(tmp_path / "own.csv"), "--columns", "name=Disease,symptoms=Signs",
        "--set", "data.builtin=false", "--output", str(tmp_path / "run"), "--report", str(tmp_path / "report"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    from symptomchat import load

    answer = load(tmp_path / "run").ask("glowing ears 3, blue toes 3")
    assert answer.conditions[0].name.startswith("Zorb")
