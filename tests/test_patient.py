"""What somebody else has, or what is long over, does not count as the patient's finding now; all else does."""

import pytest

from symptomchat import load
from symptomchat.evaluation.pairs import condition_rows, load_pairs
from symptomchat.files import MODELS


@pytest.fixture(scope="module")
def shipped():
    return load(MODELS / "symptomchat")


@pytest.mark.parametrize(
    "text, own",
    [
        ("I have a sore throat. My aunt has chest pain and sweats.", "I have a sore throat."),
        ("My knee aches and my colleague has a swollen, red calf.", "My knee aches"),
        ("I cough at night. When I was eight my ear hurt and ran.", "I cough at night."),
        (
            "My eyes itch. Eleven years ago I had a stabbing headache every night. I sneeze a lot.",
            "My eyes itch. I sneeze a lot.",
        ),
        (
            "Our daughter has a fever. A boy in her class has a stiff neck and a headache.",
            "Our daughter has a fever.",
        ),
        ("I only have a headache. A friend of mine vomits and has a stiff neck.", "I only have a headache."),
        ("I have a rash.\nMy flatmate says it burns when she pees.", "I have a rash."),
    ],
)
def test_clauses_of_others_and_of_the_past_are_not_ranked(shipped, text, own):
    assert shipped.patient.own(text) == own
    assert (shipped.judge(text).probabilities == shipped.judge(own).probabilities).all()


@pytest.mark.parametrize(
    "text",
    [
        # A carer's patient is not the writer.
        "My mum can't breathe. Her lips are blue.",
        "I'm worried about my husband. My husband has chest pain.",
        "My newborn was 38.6 an hour ago. Can I give something for the fever?",
        "I have a son. My son has a high fever and a stiff neck.",
        "It's my baby. She has a rash that does not fade. The baby is limp.",
        # What others see of the patient.
        "I am tired all day. My wife says I stop breathing at night.",
        "My skin itches. My husband says the whites look yellow.",
        # Family history, contacts, and what began long ago and lasts.
        "I have a lump in my breast. My mother had breast cancer.",
        "I feel feverish and spotty. My son has chickenpox.",
        "I fainted at training. My uncle died suddenly at 25.",
        "I am tired and bruise easily. My mother needed monthly injections for her blood.",
        "I have high blood pressure and a dull ache in both sides. My mother went on dialysis at fifty.",
        "I itch at night. My children have been scratching their skin as well.",
        "My ankle is swollen. My daughter says the veins in my neck stand out and the pulse is fast.",
        "My wife is pregnant and her left leg is swollen. Her mother had a blood clot in the leg in pregnancy.",
        "My son, 17, has a lump at the back of his knee. It does not hurt. We thought of football, my knee hurt too.",
        "I cough a lot. Two years ago I started to get short of breath.",
        "I get palpitations. Last year I noticed a tremor.",
        "I had a fever last winter, and it is back again now.",
        # Nothing else to rank, a single clause, and reports in the third person.
        "My neighbour has a swollen calf and is short of breath.",
        "Thanks. Years ago I had a stabbing headache.",
        "A 45-year-old man has chest pain. His father had the same. A woman was with him.",
        "",
    ],
)
def test_what_may_be_the_patients_stays(shipped, text):
    assert shipped.patient.own(text) == text


def test_red_flags_hear_the_whole_text(shipped):
    text = "I have a runny nose. My husband has crushing chest pain and is sweating."
    assert shipped.patient.own(text) == "I have a runny nose."
    answer = shipped.ask(text)
    assert answer.red_flags and answer.triage == "emergency"


def test_nine_pairs_in_ten_of_time_and_person_come_out_right(shipped):
    rows = {row["kind"]: row for row in condition_rows(shipped, load_pairs())}
    assert rows["past"]["right"] >= 0.9
    assert rows["other person"]["right"] >= 0.9
    assert rows["denied"]["right"] >= 0.85
