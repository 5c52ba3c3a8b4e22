"""What the README says to type works, and its tables are those that the script writes."""

import re
import shlex
import subprocess
import sys

import pytest

from symptomchat.cli import build_parser, main
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_there_are_two_commands_each_one_line_with_its_environment():
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert len(lines) == 2 and lines[0].endswith("python train.py") and lines[1].endswith("pytest")
    assert all('pip install -e ".[all]"' in line for line in lines)


def test_every_symptomchat_command_parses():
    commands = re.findall(r"^symptomchat .*$", README, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        build_parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("command", re.findall(r"^symptomchat ask \".*$", README, re.MULTILINE))
def test_the_questions_are_answered(command, bundle, capsys):
    assert main([*shlex.split(command)[1:], "--model", str(bundle)]) == 0
    assert "confidence" in capsys.readouterr().out


def test_the_python_example_runs(bundle, capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    exec(code.replace("models/laptop", str(bundle)), {})
    assert re.search(r"0\.\d+ (True|False)", capsys.readouterr().out)


def test_every_linked_file_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).is_file(), target


def test_the_tables_are_what_the_script_writes(tmp_path):
    before = README
    done = subprocess.run(
        [sys.executable, "benchmarks/readme_tables.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "README.md").read_text(encoding="utf-8") == before


def test_no_path_of_a_machine_and_no_registry_host_is_committed():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    places = re.compile(
        r"/(?:home|root|work|Users)/\w+|index-url|https?://[\w.]*(?:mirror|artifactory|nexus)"
    )
    for name in files:
        path = ROOT / name
        if path.suffix in (".npz", ".png", ".tflite") or not path.is_file():
            continue
        assert not places.search(path.read_text(encoding="utf-8")) or name == "tests/test_readme.py", name
