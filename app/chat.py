"""SymptomChat in the browser: ``streamlit run app/chat.py [-- --model FOLDER]``.

The frame of the pages: the chat itself and, beside it, the conditions, the model, its training, and how far to
trust it. Each page runs on the runtime alone; nothing is fetched from elsewhere and nothing is sent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

# Streamlit puts this file's folder on the path, not the project's.
ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from app.ui.look import STYLE  # noqa: E402
from app.ui.session import hold  # noqa: E402


def main() -> None:
    """The frame."""
    st.set_page_config(page_title="SymptomChat", page_icon="🩺", layout="centered")
    pages = [
        st.Page("views/talk.py", title="Chat", icon=":material/forum:", default=True),
        st.Page("views/conditions.py", title="Conditions", icon=":material/menu_book:"),
        st.Page("views/model.py", title="Model", icon=":material/memory:"),
        st.Page("views/training.py", title="Training", icon=":material/trending_down:"),
        st.Page("views/trust.py", title="Trust", icon=":material/verified_user:"),
    ]
    page = st.navigation(pages, position="top")
    st.html(STYLE)
    hold()
    page.run()


main()
