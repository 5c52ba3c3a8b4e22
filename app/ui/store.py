"""What the chat keeps on this machine: conversations under an unguessable id, and feedback where it was allowed.

One SQLite file in the data folder (``SYMPTOMCHAT_HOME``, or the platform's place for user data), readable by its
owner alone. Nothing is sent anywhere. In: plain values. Out: plain values, or the feedback as CSV.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import secrets
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from symptomchat.errors import SymptomChatError

KEPT_DAYS = 30
"""A conversation that nobody opened for so long is deleted."""
ID = re.compile(r"^[A-Za-z0-9_-]{32}$")
COLUMNS = ("Name", "Symptoms", "Treatments", "Verdict", "Said", "Answered", "Confidence", "Model", "When")
"""The first three are those that ``train.py --data`` reads; it leaves the others alone."""
VERDICTS = ("right", "wrong", "not helpful")
_TABLES = """
CREATE TABLE IF NOT EXISTS conversations (id TEXT PRIMARY KEY, state TEXT NOT NULL, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS feedback (
    conversation TEXT NOT NULL, turn INTEGER NOT NULL, verdict TEXT NOT NULL, really TEXT NOT NULL,
    findings TEXT NOT NULL, treatments TEXT NOT NULL, said TEXT NOT NULL, answered TEXT NOT NULL,
    confidence REAL NOT NULL, model TEXT NOT NULL, given REAL NOT NULL, PRIMARY KEY (conversation, turn)
);
"""


def data_folder() -> Path:
    """``SYMPTOMCHAT_HOME``, or where this platform keeps a user's data."""
    chosen = os.environ.get("SYMPTOMCHAT_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "SymptomChat"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "SymptomChat"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "symptomchat"


def new_id() -> str:
    """192 random bits: nobody finds a conversation by guessing."""
    return secrets.token_urlsafe(24)


class Store:
    """One SQLite file; every call opens and closes it, so that any number of threads may share a store.

    Raises:
        SymptomChatError: the folder or the file cannot be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or data_folder()) / "chat.db"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self.path.chmod(0o600)
        except OSError as error:
            raise SymptomChatError(
                f"{self.path}: cannot be written ({error.strerror}); set SYMPTOMCHAT_HOME to another folder"
            ) from error
        with self._open() as base:
            base.executescript(_TABLES)
            base.execute("DELETE FROM conversations WHERE used < ?", (time.time() - KEPT_DAYS * 86400,))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            base = sqlite3.connect(self.path, timeout=10)
            try:
                # What is deleted is overwritten, not only unlinked.
                base.execute("PRAGMA secure_delete = ON")
                with base:
                    yield base
            finally:
                base.close()
        except sqlite3.Error as error:
            raise SymptomChatError(
                f"{self.path}: cannot be used ({error}); move it away, or set SYMPTOMCHAT_HOME to another folder"
            ) from error

    def save(self, id: str, state: dict[str, Any]) -> None:
        """Keep a conversation."""
        with self._open() as base:
            base.execute(
                "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?)", (id, json.dumps(state), time.time())
            )

    def load(self, id: str) -> dict[str, Any] | None:
        """A conversation, or None where the id is none of this machine's."""
        if not ID.match(id):
            return None
        with self._open() as base:
            row = base.execute("SELECT state FROM conversations WHERE id = ?", (id,)).fetchone()
            if row:
                base.execute("UPDATE conversations SET used = ? WHERE id = ?", (time.time(), id))
        state = json.loads(row[0]) if row else None
        return state if isinstance(state, dict) else None

    def revision(self, id: str) -> int | None:
        """How often a conversation was written, or None where it is not kept: what another tab did shows here."""
        with self._open() as base:
            row = base.execute(
                "SELECT json_extract(state, '$.revision') FROM conversations WHERE id = ?", (id,)
            ).fetchone()
        return int(row[0] or 0) if row else None

    def delete(self, id: str) -> None:
        """Forget a conversation."""
        with self._open() as base:
            base.execute("DELETE FROM conversations WHERE id = ?", (id,))

    def rate(self, conversation: str, turn: int, row: dict[str, Any]) -> None:
        """Keep one person's feedback on one answer; a second one replaces the first.

        Args:
            row: verdict, really, findings, treatments, said, answered, confidence, model.
        """
        names = ("verdict", "really", "findings", "treatments", "said", "answered", "confidence", "model")
        with self._open() as base:
            base.execute(
                f"INSERT OR REPLACE INTO feedback VALUES ({', '.join('?' * (len(names) + 3))})",
                (conversation, turn, *(row[name] for name in names), time.time()),
            )

    def withdraw(self, conversation: str) -> int:
        """Delete all feedback of a conversation; how many answers it was about."""
        with self._open() as base:
            return base.execute("DELETE FROM feedback WHERE conversation = ?", (conversation,)).rowcount

    def ratings(self, conversation: str) -> int:
        """How many answers of a conversation have feedback."""
        with self._open() as base:
            row = base.execute(
                "SELECT COUNT(*) FROM feedback WHERE conversation = ?", (conversation,)
            ).fetchone()
        return int(row[0])

    def export(self, conversation: str) -> str:
        """The feedback of a conversation as CSV in the columns that ``train.py --data`` reads.

        A row needs a condition and findings. So a "wrong" or "not helpful" without the name of what it really was
        is kept and counted, but no row here, and neither is an answer to words in which no finding is recognised.
        """
        with self._open() as base:
            rows = base.execute(
                "SELECT really, findings, treatments, verdict, said, answered, confidence, model, given FROM feedback"
                " WHERE conversation = ? AND really != '' AND findings != '' ORDER BY given",
                (conversation,),
            ).fetchall()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for *values, given in rows:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(given))
            writer.writerow([harmless(str(value)) for value in values] + [when])
        return out.getvalue()


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
