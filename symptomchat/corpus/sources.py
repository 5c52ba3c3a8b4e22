"""Where records come from: a Hugging Face dataset, the built-in dataset, a file of the user's own.

In: a dataset id or a path with a column mapping. Out: raw records, cleaned records, and a table of what
cleaning dropped or merged and why.
"""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from symptomchat.corpus.knowledge import key
from symptomchat.errors import SymptomChatError
from symptomchat.files import fingerprint, read_jsonl, read_text, sha256

DEFAULT_COLUMNS = {"name": "Name", "symptoms": "Symptoms", "treatments": "Treatments"}


class HubUnreachable(SymptomChatError):
    """The Hub gave no dataset for a reason that lies outside the dataset (network, server)."""


@dataclass(frozen=True)
class Source:
    """Records of one source before cleaning.

    Attributes:
        name: dataset id or path.
        fingerprint: of the content.
        rows: data frame with the columns name, symptoms, treatments and row (place in the source).
    """

    name: str
    fingerprint: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Cleaned:
    """Records after cleaning, and what happened to the others."""

    records: list[tuple[str, list[str], list[str]]]
    report: list[dict[str, str]]
    counts: dict[str, int] = field(default_factory=dict)


def parse_columns(text: str) -> dict[str, str]:
    """``"name=Disease,symptoms=Signs"`` → a mapping over the default columns."""
    columns = dict(DEFAULT_COLUMNS)
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        ours, equals, theirs = part.partition("=")
        if not equals or ours not in columns:
            raise SymptomChatError(
                f"--columns {text}: '{part}' is not one of name=…, symptoms=…, treatments=…; "
                "write for example name=Disease,symptoms=Signs"
            )
        columns[ours] = theirs
    return columns


def _frame(rows: pd.DataFrame, columns: dict[str, str], where: str, strict: bool) -> pd.DataFrame:
    """Take the mapped columns out of a raw frame; treatments may be missing."""
    rows = rows.rename(columns={name: str(name).lstrip("\ufeff").strip() for name in rows.columns})
    present = list(rows.columns)
    for ours in ("name", "symptoms"):
        if columns[ours] not in present:
            raise SymptomChatError(
                f"{where}: column '{columns[ours]}' is missing (there are: {', '.join(map(str, present))}); "
                f"map it with --columns {ours}=…"
            )
    frame = pd.DataFrame(
        {ours: rows[theirs] if theirs in present else "" for ours, theirs in columns.items()}
    )
    frame = frame.fillna("").astype(str)
    frame["row"] = range(2, len(frame) + 2)
    if strict:
        for ours in ("name", "symptoms"):
            empty = frame[frame[ours].str.strip() == ""]
            if len(empty):
                row = int(empty["row"].iloc[0])
                raise SymptomChatError(
                    f"{where}: row {row}: column '{columns[ours]}' is empty; fill the cell or delete the row"
                )
    return frame


def hub_frame(dataset: str, split: str = "train") -> pd.DataFrame:
    """Rows of a dataset of the Hugging Face Hub, with ``datasets.load_dataset``.

    Raises:
        HubUnreachable: network or server failure, or no such dataset on the server.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(dataset, split=split)
    except Exception as error:  # the libraries below raise a dozen unrelated types
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise HubUnreachable(
            f"Hub dataset {dataset}: could not be loaded ({reason}); check the name and the network, "
            "or pass --offline"
        ) from error
    return loaded.to_pandas()


def from_hub(dataset: str, columns: dict[str, str] | None = None, split: str = "train") -> Source:
    """Conditions and symptoms of a dataset of the Hugging Face Hub.

    Raises:
        HubUnreachable: network or server failure, or no such dataset on the server.
        SymptomChatError: the dataset is there and has other columns than expected.
    """
    rows = hub_frame(dataset, split)
    frame = _frame(rows, columns or DEFAULT_COLUMNS, f"Hub dataset {dataset}", strict=False)
    return Source(dataset, fingerprint(frame[["name", "symptoms", "treatments"]].values.tolist()), frame)


def _check_header(header: list[str], path: Path) -> None:
    seen: set[str] = set()
    for name in (h.strip() for h in header):
        if name in seen:
            raise SymptomChatError(f"{path}: column '{name}' stands twice in the header; rename one of them")
        seen.add(name)


def from_file(path: Path, columns: dict[str, str] | None = None) -> Source:
    """Load the user's own CSV, JSONL or Parquet file.

    Raises:
        SymptomChatError: naming the file, the row and the column that is wrong.
    """
    columns = columns or DEFAULT_COLUMNS
    if not path.is_file():
        raise SymptomChatError(f"{path}: is not a file; check the path")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        text = read_text(path)
        if "\x00" in text:
            raise SymptomChatError(f"{path}: holds binary data; give a CSV, JSONL or Parquet file")
        reader = csv.reader(io.StringIO(text))
        try:
            table = [row for row in reader if row]
        except csv.Error as error:
            raise SymptomChatError(
                f"{path}: line {reader.line_num}: is not valid CSV ({error}); mend it"
            ) from error
        if not table:
            raise SymptomChatError(f"{path}: is empty; give a header and at least one row")
        _check_header(table[0], path)
        for number, row in enumerate(table[1:], start=2):
            if len(row) != len(table[0]):
                raise SymptomChatError(
                    f"{path}: row {number}: has {len(row)} cells, the header {len(table[0])}; "
                    "quote cells that hold commas"
                )
        rows = pd.DataFrame(table[1:], columns=table[0])
    elif suffix in (".jsonl", ".json"):
        rows = pd.DataFrame([row for _, row in read_jsonl(path)])
    elif suffix == ".parquet":
        try:
            rows = pd.read_parquet(path)
        except Exception as error:  # pyarrow raises its own family of errors
            raise SymptomChatError(f"{path}: is not a readable Parquet file; write it again") from error
    else:
        raise SymptomChatError(f"{path}: is not .csv, .jsonl or .parquet; convert it")
    if rows.empty:
        raise SymptomChatError(f"{path}: holds no rows; give at least one record")
    return Source(str(path), sha256(path)[:16], _frame(rows, columns, str(path), strict=True))


def tidy(text: str) -> str:
    """Strip byte-order marks and stray brackets, join white space, mend unbalanced parentheses."""
    text = text.replace("\ufeff", "").replace("[", "").replace("]", "")
    text = re.sub(r"\s+", " ", text).strip(" ,;.")
    if text.count("(") != text.count(")"):
        text = text.replace("(", "").replace(")", "")
    return text


def items(text: str) -> list[str]:
    """A comma or semicolon list as tidy parts; commas inside brackets do not separate."""
    parts = re.split(r"[,;](?![^(]*\))", text)
    return [part for part in (tidy(p) for p in parts) if part]


def clean(source: Source) -> Cleaned:
    """Normalise the rows of a source and merge conditions that are listed twice.

    Returns:
        one record per condition, and a report row for every row that was dropped, merged or mended.
    """
    report: list[dict[str, str]] = []
    merged: dict[str, tuple[str, list[str], list[str]]] = {}
    unique = set()
    for row in source.rows.itertuples(index=False):
        raw = (str(row.name), str(row.symptoms), str(row.treatments))
        name, symptoms, treatments = tidy(raw[0]), items(raw[1]), items(raw[2])
        numbered = re.sub(r"-\d+$", "", name)
        where = f"row {row.row}"
        if not name or not symptoms:
            missing = "name" if not name else "symptoms"
            report.append({"where": where, "name": name, "what": "dropped", "why": f"no {missing}"})
            continue
        if numbered != name:
            report.append(
                {"where": where, "name": name, "what": "renamed", "why": f"numbered variant of {numbered}"}
            )
            name = numbered
        elif name != raw[0].strip():
            report.append(
                {"where": where, "name": name, "what": "mended", "why": "byte-order mark or brackets"}
            )
        if raw in unique:
            report.append(
                {"where": where, "name": name, "what": "dropped", "why": "identical row seen before"}
            )
            continue
        unique.add(raw)
        if key(name) in merged:
            first, old_symptoms, old_treatments = merged[key(name)]
            _extend(old_symptoms, symptoms)
            _extend(old_treatments, treatments)
            report.append(
                {"where": where, "name": name, "what": "merged", "why": f"listed before as {first}"}
            )
        else:
            merged[key(name)] = (name, symptoms, treatments)
    counts = {
        "rows": len(source.rows),
        "unique records": len(unique),
        "labels as written": int(source.rows["name"].nunique()),
        "conditions after cleaning": len(merged),
    }
    return Cleaned(list(merged.values()), report, counts)


def _extend(into: list[str], more: list[str]) -> None:
    known = {key(item) for item in into}
    into.extend(item for item in more if key(item) not in known)
