"""What one visitor's session holds: the model, the conversation, and whether it is kept.

A conversation is kept in the store under an unguessable id that stands in the page's address; without the address
nobody finds it. Tabs with one address show one conversation. The model and its knowledge are shared by all visitors
and never changed.
"""

from __future__ import annotations

import argparse
import copy
import threading
from dataclasses import astuple
from pathlib import Path
from typing import Any

import streamlit as st

from app.ui.store import Store, new_id
from symptomchat import Assistant, SymptomChatError, load
from symptomchat.phone.bundle import PRECISIONS
from symptomchat.runtime.dialogue import Conversation
from symptomchat.runtime.explain import Span
from symptomchat.runtime.inquiry import Inquiry
from symptomchat.runtime.regions import REGIONS

ADDRESS = "c"
"""Query parameter that holds the id of a conversation."""
MODEL_LOCK = threading.Lock()
"""An interpreter answers one question at a time; visitors wait their turn."""


def model_folder() -> str | None:
    """Folder given after ``--`` on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    chosen = parser.parse_known_args()[0].model
    return str(chosen) if chosen else None


@st.cache_resource(show_spinner="Opening the model …")
def opened(folder: str | None, precision: str | None) -> tuple[Assistant, Inquiry]:
    """One assistant and its knowledge for all visitors of this server."""
    assistant = load(folder, precision)
    return assistant, Inquiry(assistant.conditions, assistant.phrasings)


def assistant(model: str | None = None, risk: float | None = None) -> tuple[Assistant, Inquiry]:
    """The model that this visitor chose, with the risk that this visitor accepts; the engine is shared.

    Args:
        model: one of ``installed``; by default the one that the server was started with. One that cannot be opened
            gives way to that, and ``model_problem`` says why.

    Raises:
        SymptomChatError: the bundle cannot be opened or is not calibrated for the risk.
    """
    shared, inquiry = opened(model_folder(), None)
    if model is not None and Path(model) != model_path(shared):
        try:
            shared, inquiry = opened(str(Path(model).parent), Path(model).suffixes[0].lstrip("."))
            st.session_state.model_problem = ""
        except SymptomChatError as error:
            st.session_state.model_problem = str(error)
            st.session_state.pop("model", None)
    if risk is None or risk == shared.calibrator.risk:
        return shared, inquiry
    own = copy.copy(shared)
    own.threshold = shared.calibrator.threshold_for(risk)
    return own, inquiry


def model_path(assistant: Assistant) -> Path:
    """The model file that an assistant answers with."""
    return assistant.folder / f"model.{assistant.precision}.tflite"


def installed(folder: Path) -> list[str]:
    """Model files of a bundle and of those beside it, the bundle's own first: other precisions, other recipes, and a
    teacher where one was made into a bundle."""
    beside = sorted(path.parent for path in folder.resolve().parent.glob("*/manifest.json"))
    found = []
    for bundle in (folder, *(path for path in beside if path != folder.resolve())):
        files = [bundle / f"model.{name}.tflite" for name in PRECISIONS]
        found += [str(path) for path in files if path.is_file()]
    return found


def hold() -> None:
    """Keep what the chat's widgets say while another page is shown, where Streamlit would drop it."""
    for name in ("model", "risk", "consent", "units"):
        if name in st.session_state:
            st.session_state[name] = st.session_state[name]


@st.cache_resource(show_spinner=False)
def _store(home: str) -> Store:
    return Store(Path(home))


def store() -> Store | None:
    """The store, or None where it cannot be written; the reason is then in ``store_problem``."""
    from app.ui.store import data_folder

    try:
        found = _store(str(data_folder()))
        st.session_state.store_problem = ""
        return found
    except SymptomChatError as error:
        st.session_state.store_problem = str(error)
        return None


def conversation(model: Assistant, inquiry: Inquiry) -> Conversation:
    """This visitor's conversation: of the session, else of the address, else a new one."""
    state = st.session_state
    if "conversation" not in state:
        state.id, state.keep, state.region = new_id(), True, next(iter(REGIONS))
        begin(Conversation(model, inquiry))
        base, asked = store(), st.query_params.get(ADDRESS, "")
        kept = base.load(asked) if base and asked else None
        if kept:
            restore(kept, asked, model, inquiry)
        elif asked:
            del st.query_params[ADDRESS]
    else:
        catch_up(model, inquiry)
    talk: Conversation = state.conversation
    talk.assistant, talk.inquiry = model, inquiry
    if state.keep and talk.turns and st.query_params.get(ADDRESS) != state.id:
        st.query_params[ADDRESS] = state.id
    return talk


def begin(talk: Conversation) -> None:
    """Take a conversation of which nothing is written yet."""
    st.session_state.conversation = talk
    st.session_state.explained = {}
    st.session_state.revision = 0


def catch_up(model: Assistant, inquiry: Inquiry) -> None:
    """Take up what another tab with this address said, or that it cleared the conversation."""
    state = st.session_state
    base = store() if state.keep and state.revision else None
    if base is None:
        return
    there = base.revision(state.id)
    if there is None:
        begin(Conversation(model, inquiry))
        if ADDRESS in st.query_params:
            del st.query_params[ADDRESS]
    elif there > state.revision:
        kept = base.load(state.id)
        if kept:
            restore(kept, state.id, model, inquiry)


def restore(kept: dict[str, Any], id: str, model: Assistant, inquiry: Inquiry) -> None:
    """Take up a kept conversation; one that another version left in a form unknown here starts anew."""
    state = st.session_state
    try:
        begin(Conversation.from_json(kept["conversation"], model, inquiry))
        state.region = kept["region"] if kept["region"] in REGIONS else state.region
        state.id, state.revision = id, int(kept.get("revision", 0))
        state.explained = {
            int(at): [Span(*values) for values in spans] for at, spans in kept.get("explained", {}).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        begin(Conversation(model, inquiry))


def keep(talk: Conversation) -> None:
    """Write the conversation, where the visitor lets it be kept."""
    state, base = st.session_state, store()
    if base is None or not state.keep:
        return
    try:
        state.revision += 1
        explained = {at: [astuple(span) for span in spans] for at, spans in state.explained.items()}
        base.save(
            state.id,
            {
                "conversation": talk.to_json(),
                "region": state.region,
                "explained": explained,
                "revision": state.revision,
            },
        )
        if talk.turns:
            st.query_params[ADDRESS] = state.id
    except SymptomChatError as error:
        state.store_problem = str(error)


def forget() -> None:
    """Delete the kept conversation and take its id out of the address."""
    base = store()
    st.session_state.revision = 0
    if base is not None:
        base.delete(st.session_state.id)
    if ADDRESS in st.query_params:
        del st.query_params[ADDRESS]
