"""The chat's pages, without a browser: what is shown, what is kept, what can be taken away."""

import csv
import io
import re
import stat
import subprocess
import sys
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from app.ui import look
from app.ui.store import COLUMNS, Store, new_id
from app.ui.takeaway import as_pdf, as_text
from app.ui.units import METRIC, US, in_units
from symptomchat import SymptomChatError
from symptomchat.corpus.sources import clean, from_file
from symptomchat.runtime.assistant import SOUNDS, Claim, ConditionProbability
from symptomchat.runtime.dialogue import Conversation, Turn
from symptomchat.runtime.explain import Span
from tests.conftest import ROOT

HOSTILE = "<script>alert('x')</script> **bold** [a](http://example.org) ![i](http://example.org/i.png) :red[x] $x$ 😀 مرحبا"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPTOMCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.argv", ["chat.py"])
    return tmp_path / "home"


def page():
    return AppTest.from_file(str(ROOT / "app" / "chat.py"), default_timeout=60)


@pytest.fixture
def chat(home):
    return page().run()


def shown(app):
    """Everything that the page says, as its HTML and text."""
    html = [body for element in app.get("html") if not (body := element.proto.body).startswith("<style")]
    return "\n".join(
        html + [element.proto.label for element in app.get("page_link")] + [e.value for kind in ("markdown", "caption", "error", "header", "title", "subheader") for e in app.get(kind)]
    )  # fmt: skip


def words(app):
    """The same without the marks, which may stand between the words of a message."""
    return re.sub(r"</?mark[^>]*>", "", shown(app))


def say(app, text):
    app.chat_input[0].set_value(text).run()
    assert not app.exception
    return app


def labels(app):
    return [button.label for button in app.button]


# The chat


def test_an_emergency_names_the_number_of_the_region_above_everything(chat):
    chat.selectbox[0].select("Australia").run()
    say(chat, "crushing chest pain going into my left arm and I am sweating")
    assert "Call 000 now" in chat.error[0].value and "heart attack" in chat.error[0].value
    order = [type(e).__name__ for e in chat.main if type(e).__name__ in ("Error", "ChatMessage")]
    say(chat, "and I feel weak")
    assert len(chat.error) == 1 and "Call 000 now" in chat.error[0].value
    assert "Yes" not in labels(chat) and (not order or order[0] != "ChatMessage")
    say(chat, "new topic: I sneeze")
    assert not chat.error


def test_a_question_with_three_answers_narrows_things_down(chat):
    say(chat, "my heart beats fast and I feel dizzy")
    assert "Does this fit you" in shown(chat) and {"Yes", "No", "Not sure"} <= set(labels(chat))
    first = re.search(r"Does this fit you\\?: (.+?)\\?\?", shown(chat)).group(1)
    chat.button(key="answer-no").click().run()
    assert not chat.exception and f"{first}: no".replace("\\", "") in shown(chat)
    assert f"Does this fit you\\: {first}" not in shown(chat)


def test_an_invented_disease_may_be_made_up_with_the_reason(chat):
    say(chat, "how is zorbitis treated?")
    assert "May be made up" in shown(chat) and "I do not know a condition called zorbitis" in shown(chat)


def test_conditions_are_bars_with_a_probability_and_link_to_their_page(chat):
    say(chat, "itchy eyes, sneezing and a runny nose whenever the grass is cut")
    text = shown(chat)
    assert 'role="meter" aria-label="Allergic rhinitis"' in text and re.search(r"\d %", text)
    links = [element.proto.label for element in chat.get("page_link")]
    assert "Allergic rhinitis" in links


def test_the_words_that_mattered_are_marked_and_stay_marked(chat):
    say(chat, "throbbing headache on one side, light hurts my eyes and I feel sick")
    assert re.search(r"<mark[^>]*>headache</mark>", shown(chat)) and "speak for Migraine" in shown(chat)
    again = page()
    again.query_params["c"] = chat.query_params["c"]
    again.run()
    assert re.search(r"<mark[^>]*>headache</mark>", shown(again))


def test_words_of_an_answer_that_was_broken_off_are_marked_on_demand(chat):
    say(chat, "throbbing headache on one side, light hurts my eyes and I feel sick")
    chat.session_state.explained = {}
    chat.run()
    assert "<mark" not in shown(chat)
    chat.button(key="explain-0").click().run()
    assert not chat.exception and "<mark" in shown(chat)


def test_a_run_that_is_broken_off_keeps_the_whole_answer(home, monkeypatch):
    """What Streamlit raises where a visitor presses something while an answer grows."""
    from app.views import talk as view  # the page's own pieces, run once by importing it

    class Stopped(BaseException):
        pass

    model, inquiry = view.session.assistant()
    talk = Conversation(model, inquiry)
    kept = []
    monkeypatch.setattr(view.session, "keep", lambda talk: kept.append(talk.to_json()))

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(view, "head", stop)
    with pytest.raises(Stopped):
        view.live(talk, "say", "my heart beats fast and I feel dizzy", "112", view.st.empty())
    assert not view.session.MODEL_LOCK.locked()
    turn = kept[-1]["turns"][-1]
    assert turn["answer"]["symptoms"] or turn["answer"]["treatments"]
    assert kept[-1]["question"]


def test_what_is_above_the_chips_is_the_same_from_the_first_paint_to_the_last():
    from app.views import talk as view

    model, _ = view.session.assistant()
    whole = replace(model.ask("I feel sick and my belly hurts"), flagged=True)
    early = replace(whole, symptoms=(), treatments=(), reasons=(view.SEVERAL,))
    late = replace(whole, reasons=("Not in my sources: fear of fear.",))
    turn = Turn("x", "case", "x", early)
    assert view.head(model, turn, "112") == view.head(model, replace(turn, answer=late), "112")
    assert "May be made up" in view.head(model, turn, "112") and view.SEVERAL in view.head(model, turn, "112")


def test_another_tab_sees_what_was_said_and_what_was_cleared(chat):
    say(chat, "my heart beats fast and I feel dizzy")
    other = page()
    other.query_params["c"] = chat.query_params["c"]
    other.run()
    say(other, "and my hands tremble")
    say(chat, "and I sweat a lot")
    assert "my hands tremble" in words(chat) and "I sweat a lot" in words(chat)
    chat.button(key="clear").click().run()
    other.run()
    assert "my hands tremble" not in words(other) and not other.session_state.conversation.turns


def test_hostile_text_is_text(chat):
    say(chat, HOSTILE)
    say(chat, f"what is {HOSTILE}?")
    say(chat, "x" * 20_000)
    text = shown(chat)
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "shorten it" in text
    for element in (*chat.markdown, *chat.caption, *chat.error, *chat.warning):
        assert "![i]" not in element.value and "<script" not in element.value


def test_a_higher_accepted_risk_holds_for_the_next_message_and_across_pages(chat):
    say(chat, "runny nose and sneezing")
    chat.select_slider[0].set_value(0.4).run()
    say(chat, "new topic: it burns when I pee and I keep running to the loo")
    talk = chat.session_state.conversation
    assert talk.assistant.threshold == pytest.approx(talk.assistant.calibrator.threshold_for(0.4))
    chat.switch_page("views/trust.py").run()
    chat.switch_page("views/talk.py").run()
    assert chat.select_slider[0].value == 0.4


# What is kept


def test_a_conversation_survives_a_new_session_and_clear_deletes_it(chat, home):
    say(chat, "a most private complaint about my toe")
    address = chat.query_params["c"]
    again = page()
    again.query_params["c"] = address
    again.run()
    assert "private complaint" in words(again)
    again.button(key="clear").click().run()
    assert "private complaint" not in words(again) and "c" not in again.query_params
    third = page()
    third.query_params["c"] = address
    third.run()
    assert "private complaint" not in words(third) and not third.session_state.conversation.turns
    assert b"private complaint" not in (home / "chat.db").read_bytes()


def test_two_people_never_see_each_other_s_conversation(chat):
    say(chat, "a most private complaint about my toe")
    other = page().run()
    assert "private" not in words(other)
    guess = page()
    guess.query_params["c"] = "' OR 1=1 --"
    guess.run()
    assert not guess.exception and "private" not in words(guess)


def test_the_switch_off_keeps_nothing(chat, home):
    say(chat, "a most private complaint about my toe")
    chat.toggle[0].set_value(False).run()
    assert "c" not in chat.query_params and b"private complaint" not in (home / "chat.db").read_bytes()
    say(chat, "and my other most private toe")
    assert b"private toe" not in (home / "chat.db").read_bytes() and "Nothing is kept" in shown(chat)


def test_the_file_is_the_owner_s_alone_and_a_bad_folder_is_said_in_a_line(home, tmp_path):
    store = Store()
    assert store.path.parent == home and stat.S_IMODE(store.path.stat().st_mode) == 0o600
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(SymptomChatError, match="SYMPTOMCHAT_HOME"):
        Store(file)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "chat.db").write_text("no database at all, but text that is long enough " * 20)
    with pytest.raises(SymptomChatError, match="move it away"):
        Store(tmp_path / "broken")


def test_an_id_cannot_be_guessed():
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000 and all(len(id) == 32 for id in ids)


def test_a_server_that_cannot_write_still_answers(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SYMPTOMCHAT_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("sys.argv", ["chat.py"])
    app = say(page().run(), "runny nose and sneezing")
    assert "confidence" in shown(app) and "Nothing can be kept" in shown(app)


# Feedback


def test_feedback_needs_consent_and_trains(chat, tmp_path):
    say(chat, "throbbing headache on one side, light hurts my eyes and I feel sick")
    assert "Keep this rating" not in labels(chat)
    chat.checkbox(key="consent").check().run()
    chat.radio(key="verdict-0").set_value("wrong").run()
    chat.text_input(key="really-0").set_value("=cluster headache").run()
    chat.button(key="rate-0").click().run()
    chat.run()
    assert not chat.exception and "1 rated" in shown(chat)
    text = Store().export(chat.session_state.id)
    (tmp_path / "feedback.csv").write_text(text)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS and rows[0]["Verdict"] == "wrong"
    assert not rows[0]["Name"].startswith("=")
    name, symptoms, _ = clean(from_file(tmp_path / "feedback.csv")).records[0]
    assert "cluster headache" in name.lower() and symptoms
    assert not Store().export("x" * 32).splitlines()[1:]
    assert Store().withdraw(chat.session_state.id) == 1


# Downloads


def test_downloads_hold_the_conversation_and_survive_any_characters(chat):
    say(chat, "runny nose and sneezing")
    turns = [
        *chat.session_state.conversation.turns,
        Turn(HOSTILE + "y" * 3000, "error", note="\x00 one\nline"),
    ]
    text = as_text(turns)
    assert "> runny nose and sneezing" in text and "Information, not diagnosis" in text and HOSTILE in text
    pdf = as_pdf(turns, "symptomchat")
    assert pdf.startswith(b"%PDF-") and len(pdf) > 2000
    assert as_pdf([]).startswith(b"%PDF-")


# The pieces


def test_chips_differ_by_word_and_shape_not_only_by_colour():
    html = look.chips("Symptoms", [Claim("a <b>", 0.9, True), Claim("z", 0.2, False), Claim("runs", 0.5, True)], ["a <b>", None, "runny nose"])  # fmt: skip
    assert "✓ a &lt;b&gt;" in html and "not in my sources" in html and "source: runny nose" in html
    assert html.count('class="none"') == 1


def test_chips_say_which_findings_are_the_person_s_own():
    given = [Claim("fever", 0.9, True), Claim("cough", 0.9, True), Claim("rash", 0.9, True)]
    html = look.chips("Symptoms", given, ["fever", "cough", None], [True, False, None])
    assert 'class="mine">✓ fever <small>you have this' in html
    assert "<li>✓ cough <small>you do not have this" in html and html.count("you ") == 2


def test_temperatures_and_lengths_are_told_in_the_chosen_units():
    when = "when there is fever over 38.5, a temperature above 40 C (104 F), a lump of 5 cm, age over 40 or a pulse over 120"
    assert in_units(when, METRIC) == when.replace("38.5,", "38.5 °C,").replace("40 C (104 F)", "40 °C")
    us = in_units(when, US)
    assert "fever over 101.3 °F" in us and "above 104 °F" in us and "2 in" in us
    assert "age over 40" in us and "pulse over 120" in us
    assert (
        in_units("fever for 38 days; go down 500 to 1000 m", US)
        == "fever for 38 days; go down 1600 to 3300 ft"
    )


def test_when_it_is_an_emergency_is_a_sentence_whatever_the_sources_begin_with():
    assert look.becomes_emergency("when it bleeds") == "becomes an emergency when it bleeds."
    assert look.becomes_emergency("always") == "always an emergency."
    assert look.becomes_emergency("never on its own") == ""
    assert (
        look.becomes_emergency("never on its own; fever needs help")
        == "by itself no emergency; fever needs help."
    )
    assert look.becomes_emergency("sudden pain").startswith("signs of an emergency: sudden")


def test_a_red_flag_folds_everything_else_away_and_what_only_sounds_so_says_whom_to_call():
    from app.views import talk as view

    model, _ = view.session.assistant()
    red = model.ask("crushing chest pain going into my left arm and I am sweating")
    turn = Turn("x", "case", "x", red)
    assert red.red_flags and "Call 999 now" in view.head(model, turn, "999")
    assert 'role="meter"' not in view.head(model, turn, "999")
    assert 'role="meter"' in view.tail(model, turn, True).split("<details>")[1]
    heard = replace(red, red_flags=(), reply=f"{SOUNDS}\nmore", triage="emergency")
    assert "if you are not sure, call 999" in view.head(model, replace(turn, answer=heard), "999")
    assert 'role="meter"' in view.head(model, replace(turn, answer=heard), "999")


def test_the_sources_alone_speak_where_the_model_takes_a_known_name_for_another():
    from app.views import talk as view

    model, _ = view.session.assistant()
    answer = model.ask("itchy eyes, sneezing and a runny nose whenever the grass is cut")
    turn = Turn("what is gout?", "aside", "what is gout?", answer, about="Gout")
    assert view.beside_the_point(turn) and not view.beside_the_point(
        replace(turn, about=answer.conditions[0].name)
    )
    html = view.head(model, turn, "112")
    assert "Gout, from my sources" in html and "Allergic rhinitis" not in html and 'role="meter"' not in html
    assert "left out" in view.tail(model, turn, True)


def test_models_beside_the_one_that_answers_can_be_chosen(tmp_path):
    from app.ui.session import installed

    for name in ("teacher", "own", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    for file in ("own/model.int8.tflite", "own/model.fp32.tflite", "teacher/model.fp32.tflite"):
        (tmp_path / file).write_bytes(b"x")
    found = [path.removeprefix(f"{tmp_path}/") for path in installed(tmp_path / "own")]
    assert found == ["own/model.fp32.tflite", "own/model.int8.tflite", "teacher/model.fp32.tflite"]


def test_marks_keep_every_letter_of_the_message():
    text = "a <i>b</i> c"
    html = look.said(text, [Span(0, 1, 1.0), Span(11, 12, -0.5)])
    assert re.sub(r"<[^>]+>", "", html) == "a &lt;i&gt;b&lt;/i&gt; c"
    assert html.count("<mark") == 2 and 'class="against"' in html


def test_bars_say_the_probability_in_words():
    html = look.bars([ConditionProbability("A & B", 0.523), ConditionProbability("C", 0.001)], ["A & B"])
    assert "52 %" in html and "&lt; 1 %" not in html and "< 1 %" in html and 'aria-valuenow="52"' in html
    assert "<b>A &amp; B</b>" in html and '<span class="name">C</span>' in html


# The other pages


@pytest.mark.parametrize("name", ["conditions", "model", "training", "trust"])
def test_no_page_is_empty_or_fails(chat, name):
    chat.switch_page(f"views/{name}.py").run()
    assert not chat.exception and len(shown(chat)) > 200


def test_a_condition_is_found_by_another_name_and_told_in_full(chat):
    chat.switch_page("views/conditions.py").run()
    chat.text_input(key="search").set_value("heart attack").run()
    text = shown(chat)
    assert not chat.exception and "Myocardial infarction" in text
    for part in ("Also called", "Findings", "Treatment", "Self-care", "Mistaken for", "What tells it apart"):
        assert part in text
    chat.text_input(key="search").set_value("<b>zorbitis</b>").run()
    assert "No condition is called" in shown(chat) and "&lt;b&gt;zorbitis" in shown(chat)
    chat.text_input(key="search").set_value("diabetis").run()
    assert any("iabetes" in element.proto.label for element in chat.get("page_link"))


def test_the_chosen_units_hold_on_the_page_of_a_condition(chat):
    chat.session_state["units"] = US
    chat.run()
    chat.switch_page("views/conditions.py")
    chat.query_params["name"] = "Heat exhaustion"
    chat.run()
    assert not chat.exception and "°F" in shown(chat) and "°C" not in shown(chat)


def test_the_model_page_measures_here_and_now(chat):
    chat.switch_page("views/model.py").run()
    assert "Not measured yet" in shown(chat)
    chat.button[0].click().run()
    assert not chat.exception and "whole answer" in shown(chat)


def test_one_s_own_threshold_reads_the_risk_table(chat):
    chat.switch_page("views/trust.py").run()
    chat.slider(key="threshold").set_value(0.0).run()
    assert "No stated risk holds" in shown(chat)
    least = min(t for _, t in chat.session_state.conversation.assistant.calibrator.thresholds)
    chat.slider(key="threshold").set_value(min(1.0, round(least + 0.01, 2))).run()
    assert "At most 40% of the answers" in shown(chat)


def test_size_and_quality_and_what_each_step_costs_are_shown(chat):
    chat.switch_page("views/model.py").run()
    assert "Size against quality" in shown(chat) and "On words of strangers" in shown(chat)
    assert chat.get("arrow_vega_lite_chart") or chat.get("vega_lite_chart")
    chat.switch_page("views/training.py").run()
    assert not chat.exception and "What each step costs and gains" in shown(chat)
    assert "teacher → student, cut" in shown(chat)


def test_a_missing_results_file_is_said_in_a_line(chat, tmp_path, monkeypatch):
    import symptomchat.files

    monkeypatch.setattr(symptomchat.files, "ROOT", tmp_path)
    for name in ("training", "trust"):
        chat.switch_page(f"views/{name}.py").run()
        assert not chat.exception and re.search("not there yet|no run yet", shown(chat))


def test_the_chat_loads_no_tensorflow_and_none_of_the_heavy_libraries(home):
    code = (
        "import sys; sys.argv=['chat.py']\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(ROOT / 'app' / 'chat.py')!r}, default_timeout=60).run()\n"
        "assert not app.exception, app.exception\n"
        "print([m for m in ('tensorflow','keras','sklearn','matplotlib','datasets','altair','fpdf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0 and done.stdout.strip().endswith("[]"), done.stdout + done.stderr[-2000:]


def test_what_is_not_counted_as_the_person_s_own_is_said():
    from app.views import talk as view

    model, _ = view.session.assistant()
    said = "I have a sore throat. My aunt <b>has</b> chest pain and sweats."
    html = view.head(model, Turn(said, "case", said, model.ask(said)), "112")
    assert "Not counted as yours" in html and "My aunt &lt;b&gt;has" in html
