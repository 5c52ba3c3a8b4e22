"""The chat's logic, without a browser."""

import pytest
from streamlit.testing.v1 import AppTest

from tests.conftest import ROOT


@pytest.fixture
def chat(bundle, monkeypatch):
    monkeypatch.setattr("sys.argv", ["chat.py", "--model", str(bundle)])
    return AppTest.from_file(str(ROOT / "app" / "chat.py"), default_timeout=60).run()


def test_an_emergency_names_the_number_of_the_region(chat):
    chat.selectbox[0].select("Australia").run()
    chat.chat_input[0].set_value("crushing chest pain going into my left arm and I am sweating").run()
    assert not chat.exception
    assert "000" in chat.error[0].value and "Call your emergency number now" in chat.error[0].value


def test_an_invented_disease_may_be_made_up_and_html_is_text(chat):
    chat.chat_input[0].set_value("what is <b>zorbitis</b>?").run()
    chat.chat_input[0].set_value("how is zorbitis treated?").run()
    assert not chat.exception
    assert any("May be made up" in w.value and "zorbitis" in w.value for w in chat.warning)
    assert any(text.value == "what is <b>zorbitis</b>?" for text in chat.text)


def test_a_higher_accepted_risk_and_clearing(chat):
    chat.select_slider[0].set_value(0.4).run()
    chat.chat_input[0].set_value("runny nose and sneezing").run()
    assert not chat.exception and any("confidence" in c.value for c in chat.caption)
    chat.button[0].click().run()
    assert not any("confidence" in c.value for c in chat.caption)


def test_two_people_never_see_each_other_s_conversation(chat, bundle):
    chat.chat_input[0].set_value("a most private complaint about my toe").run()
    other = AppTest.from_file(str(ROOT / "app" / "chat.py"), default_timeout=60).run()
    assert any("private" in text.value for text in chat.text)
    assert not any("private" in text.value for text in other.text)
