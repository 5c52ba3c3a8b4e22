"""What a suite's labels are matched with, so that a stranger's spelling is no wrong answer."""

import pytest

from symptomchat.evaluation.suites import Case, label_finder, score, spelling

NAMES = {
    "Hemorrhoids": "Hemorrhoids",
    "piles": "Hemorrhoids",
    "Sjogren syndrome": "Sjogren syndrome",
    "Myocardial infarction": "Myocardial infarction",
    "NSTEMI": "Myocardial infarction",
    "Brain tumor": "Brain tumor",
    "Wart": "Wart",
    "Corn": "Corn",
    "Cörn": "Callus",
    "Psoriasis": "Psoriasis",
}


@pytest.mark.parametrize(
    "label, name",
    [
        ("hemorrhoids", "Hemorrhoids"),
        ("Haemorrhoids", "Hemorrhoids"),
        ("Sjögren's syndrome", "Sjogren syndrome"),
        ("Possible NSTEMI / STEMI", None),
        ("NSTEMI / STEMI", "Myocardial infarction"),
        ("Piles or anal fissure", "Hemorrhoids"),
        ("Brain tumours", "Brain tumor"),
        ("Warts (plantar)", "Wart"),
        ("Corn", "Corn"),
        ("Corns", None),
        ("Zorbitis", None),
    ],
)
def test_a_label_is_found_by_its_spelling(label, name):
    """Never by guessing: two conditions that are spelt alike find neither."""
    assert label_finder(NAMES)(label) == name


def test_plurals_and_british_vowels_are_one_spelling():
    assert spelling("Haemorrhoids") == spelling("hemorrhoid")
    assert spelling("Gastro-oesophageal reflux") == spelling("gastro esophageal reflux")
    assert spelling("psoriasis") == "psoriasis" and spelling("abscess") == "abscess"


def test_an_unknown_label_counts_as_wrong():
    cases = [Case("itches", "Haemorrhoids"), Case("hurts", "Zorbitis")]
    found = score("always", cases, label_finder(NAMES), lambda text: ["Hemorrhoids"])
    assert found.top[1] == 0.5 and found.coverage == 0.5
