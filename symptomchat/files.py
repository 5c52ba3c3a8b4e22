"""Small file helpers shared by every stage: atomic writes, hashes and the places of the built-in files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symptomchat.errors import SymptomChatError

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
MODELS = ROOT / "models"
BASE = MODELS / "base"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` and rename it on success, so that no half-written file stays.

    Raises:
        SymptomChatError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        temporary.touch()
    except OSError as error:
        raise SymptomChatError(
            f"{path}: cannot be written ({error.strerror}); choose another folder or mend its permissions"
        ) from error
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with stable key order as given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file's content; the target is either the whole of it or what it was before."""
    with atomic(target) as temporary:
        temporary.write_bytes(read_bytes(source))


def read_bytes(path: Path) -> bytes:
    """Read a file, or say in one line why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SymptomChatError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def read_text(path: Path) -> str:
    """Read UTF-8 text (with or without a byte-order mark), or say in one line why it cannot be read."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SymptomChatError(
            f"{path}: byte {error.start}: is not UTF-8 text; save the file as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """Read JSON, or say in one line what is wrong with it."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise SymptomChatError(
            f"{path}: line {error.lineno}: is not valid JSON ({error.msg}); mend or replace the file"
        ) from error


def read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read JSON lines as ``(line number, object)``; empty lines are skipped."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SymptomChatError(
                f"{path}: line {number}: is not valid JSON ({error.msg}); write one JSON object a line"
            ) from error
        if not isinstance(row, dict):
            raise SymptomChatError(f"{path}: line {number}: is not a JSON object; write {{…}} on each line")
        rows.append((number, row))
    return rows


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits that change whenever the JSON form of ``value`` does."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
