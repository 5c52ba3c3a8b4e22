"""The comparison with a phone's processor counts what differs, and says in one line what is missing."""

import copy
import importlib.util
import shutil
import sys

import pytest

from symptomchat import SymptomChatError
from symptomchat.files import ROOT, read_json, write_json
from symptomchat.phone import reference

spec = importlib.util.spec_from_file_location("arm64", ROOT / "benchmarks" / "arm64.py")
arm64 = importlib.util.module_from_spec(spec)
sys.modules["arm64"] = arm64
spec.loader.exec_module(arm64)

ENTRY = {
    "text": "my chest hurts",
    "ids": [2, 7, 3],
    "conditions": [
        {"name": "A", "probability": 0.5},
        {"name": "B", "probability": 0.3},
        {"name": "C", "probability": 0.1},
    ],
    "confidence": 0.7,
    "flagged": True,
    "red_flags": ["Possible heart attack"],
    "symptoms": [{"text": "chest pain", "confidence": 0.9, "grounded": True}],
    "treatments": [],
}


def changed(**values):
    return [copy.deepcopy(ENTRY) | values]


def test_the_same_answers_are_the_same():
    result = arm64.compare([ENTRY], [copy.deepcopy(ENTRY)], 0.01)
    assert result["different"] == [] and result["first three"] == result["claims"] == result["questions"] == 1
    assert result["largest difference of confidence"] == 0


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        ({"conditions": [ENTRY["conditions"][at] for at in (0, 2, 1)]}, "first three"),
        ({"flagged": False}, "flag"),
        ({"red_flags": []}, "red flags"),
        ({"confidence": 0.72}, "above the tolerance"),
    ],
)
def test_each_difference_is_counted_and_its_question_named(values, counted):
    result = arm64.compare([ENTRY], changed(**values), 0.01)
    assert result["different"] == ["my chest hurts"]
    assert result[counted] == (1 if counted == "above the tolerance" else 0)


def test_a_difference_below_the_tolerance_is_none_but_is_shown():
    result = arm64.compare([ENTRY], changed(confidence=0.705, symptoms=[]), 0.01)
    assert result["different"] == [] and result["claims"] == 0
    assert result["largest difference of confidence"] == 0.005


def test_the_largest_difference_of_a_probability_is_of_the_same_condition():
    moved = [
        {"name": "B", "probability": 0.34},
        {"name": "A", "probability": 0.33},
        {"name": "D", "probability": 0.2},
    ]
    assert (
        arm64.compare([ENTRY], changed(conditions=moved), 0.01)["largest difference of a probability"] == 0.17
    )


def test_other_questions_are_no_comparison():
    with pytest.raises(SymptomChatError, match="holds other questions"):
        arm64.compare([ENTRY], changed(text="my arm hurts"), 0.01)


def test_without_qemu_one_line_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(arm64.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    output = tmp_path / "arm64.json"
    assert arm64.main(["--output", str(output), "--folder", str(tmp_path / "files")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "apt-get install qemu-user-static" in error
    assert not output.exists() and not (tmp_path / "files").exists()


def test_without_mmdebstrap_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SymptomChatError, match="apt-get install mmdebstrap"):
        arm64.prepare(tmp_path / "files")


def test_an_arm64_machine_needs_another_machines_answers(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(arm64.platform, "machine", lambda: "aarch64")
    assert arm64.main(["--output", str(tmp_path / "arm64.json")]) == 2
    assert "--reference: is missing" in capsys.readouterr().err


def test_an_arm64_machine_is_held_against_another_machines_answers(monkeypatch, capsys, tmp_path):
    """The path of a phone-like machine, walked on this one: its own answers are compared with a written reference."""
    monkeypatch.setattr(arm64.platform, "machine", lambda: "aarch64")
    assistant = arm64.load()
    entries = arm64.answered(assistant, reference.questions()[:2])
    entries[1]["confidence"] += 0.5
    write_json(tmp_path / "reference.json", {"format": reference.FORMAT, "model": "", "questions": entries})
    arguments = ["--reference", str(tmp_path / "reference.json"), "--output", str(tmp_path / "arm64.json")]
    assert arm64.main([*arguments, "--questions", "2"]) == 1
    result = read_json(tmp_path / "arm64.json")
    assert result["first three"] == result["token ids"] == 2 and result["different"] == [entries[1]["text"]]
    assert f"different: {entries[1]['text']}" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.skipif(
    arm64.platform.machine().lower() not in arm64.NATIVE
    and not any(map(shutil.which, arm64.EMULATORS))
    or not shutil.which("mmdebstrap"),
    reason="needs qemu-user-static and mmdebstrap",
)
def test_an_arm64_processor_gives_the_same_answers(tmp_path):
    """A tenth of the reference questions under qemu; kernels round otherwise, so the confidence may move a little."""
    output = tmp_path / "arm64.json"
    code = arm64.main(["--questions", "5", "--tolerance", "0.02", "--output", str(output)])
    result = read_json(output)
    assert code == 0, result["different"]
    for name in ("token ids", "first three", "flag", "red flags"):
        assert result[name] == result["questions"] == 5
    assert result["largest difference of confidence"] <= 0.02
