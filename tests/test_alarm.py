"""The emergency classifier: it hears what no rule lists, wherever it runs, and stays quiet about small things."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from symptomchat import load
from symptomchat.corpus.knowledge import load_knowledge
from symptomchat.evaluation.pairs import load_blind
from symptomchat.files import ROOT
from symptomchat.phone.web import constants
from symptomchat.runtime.alarm import Alarm, buckets_of, pieces
from symptomchat.runtime.assistant import SOUNDS


@pytest.fixture(scope="module")
def assistant():
    return load()


def test_most_emergencies_in_strangers_words_are_heard(assistant):
    texts = load_blind()
    heard = np.array(
        [bool(assistant.red_flags.check(t.text)) or assistant.alarm.rings(t.text) for t in texts]
    )
    labels = np.array([t.emergency for t in texts])
    assert heard[labels].mean() >= 0.78
    assert heard[~labels].mean() <= 0.12


def test_nothing_learns_from_the_blind_texts():
    knowledge = load_knowledge()
    learned = {row.text for row in knowledge.emergencies} | {p.text for p in knowledge.presentations}
    assert len(knowledge.emergencies) >= 1000
    assert not learned & {t.text for t in load_blind()}


def test_an_emergency_without_a_rule_comes_first_in_the_reply(assistant):
    missed = [
        t.text
        for t in load_blind()
        if t.emergency and not assistant.red_flags.check(t.text) and assistant.alarm.rings(t.text)
    ]
    assert len(missed) >= 50
    for text in missed[:5]:
        answer = assistant.ask(text)
        assert answer.triage == "emergency" and answer.reply.startswith(SOUNDS)


def test_it_survives_a_round_trip_and_any_text():
    alarm = Alarm(np.array([1, -2, 3, 0], "int8"), 0.5, -1.0, 0.4)
    again = Alarm.from_json(json.loads(json.dumps(alarm.to_json())))
    for text in ("", "...", "can\u2019t BREATHE \U0001f62d", "a" * 20_000, "\u05d0\u05d1 39.5"):
        assert again.probability(text) == alarm.probability(text)
        assert 0 < alarm.probability(text) < 1
    assert pieces("can't") == pieces("cant")
    assert list(buckets_of("a b", 4)) == sorted(set(buckets_of("a b", 4)))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_phone_page_hears_the_same(tmp_path, assistant):
    texts = [t.text for t in load_blind()][:100] + ["", "can\u2019t BREATHE \U0001f62d", "\u05d0\u05d1 39.5"]
    source = ROOT / "app" / "phone" / "src"
    for name in ("runtime/alarm.js", "runtime/python.js"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, tmp_path / name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "constants.js").write_text(f"export default {json.dumps(constants())};")
    (tmp_path / "in.json").write_text(json.dumps([assistant.alarm.to_json(), texts]))
    (tmp_path / "run.js").write_text(
        'import { readFileSync } from "node:fs"; import { Alarm } from "./runtime/alarm.js";'
        'const [values, texts] = JSON.parse(readFileSync("in.json", "utf8")); const alarm = new Alarm(values);'
        "console.log(JSON.stringify(texts.map((text) => alarm.probability(text))));"
    )
    run = subprocess.run(["node", "run.js"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == pytest.approx(
        [assistant.alarm.probability(text) for text in texts], abs=1e-9
    )
