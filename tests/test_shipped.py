"""The model that comes with a clone: small enough for a phone, sound, and of use at once."""

import pytest

from symptomchat import load
from symptomchat.files import MODELS, read_json
from symptomchat.phone.bundle import model_file, verify

SHIPPED = MODELS / "symptomchat"


@pytest.fixture(scope="module")
def shipped():
    return load()


def test_a_clone_answers_without_training(shipped):
    assert shipped.folder == SHIPPED
    assert shipped.manifest["recipe"]["name"] == "full" and shipped.manifest["commit"]
    assert len(shipped.conditions) >= 700


def test_it_fits_a_phone():
    model = SHIPPED / model_file(verify(SHIPPED))
    assert model.stat().st_size <= 10 * 2**20
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 13_000_000


def test_the_card_names_the_figures_of_the_manifest():
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    manifest, confidence = read_json(SHIPPED / "manifest.json"), read_json(SHIPPED / "confidence.json")
    assert manifest["commit"] in card and f"{confidence['threshold']:.3f}" in card
    for row in manifest["table"]:
        assert f"{row['bytes'] / 2**20:.2f}" in card


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("it stings when I wee and I need to go every half hour", {"Cystitis", "Pyelonephritis"}),
        ("itchy eyes, sneezing and a runny nose whenever the grass is cut", {"Allergic rhinitis"}),
        ("my big toe is red, swollen and so sore that I can't bear the sheet on it", {"Gout"}),
        ("what are the symptoms of asthma?", {"Asthma"}),
    ],
)
def test_plain_complaints_are_understood(shipped, text, names):
    assert names & {c.name for c in shipped.ask(text).conditions[:3]}


def test_an_emergency_and_an_invented_disease_are_marked(shipped):
    answer = shipped.ask("crushing chest pain going down my left arm and I'm sweating")
    assert (
        answer.red_flags
        and answer.triage == "emergency"
        and answer.reply.startswith("This may be an emergency")
    )
    assert shipped.ask("how is morbax fever treated?").flagged
