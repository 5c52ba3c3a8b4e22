"""Negation, time and person: whether a finding counts only where the patient has it, and has it now.

In: a bundle and the authored files beside this module. ``minimal_pairs.jsonl`` holds pairs of texts: in ``a`` the
patient has a decisive finding now, in ``b`` the same finding is denied, long past or someone else's.
``fresh_emergencies.jsonl`` holds emergencies and harmless neighbours in words that were written without sight of
the rules. Out: the share that comes out right, with its interval. Half of the texts about red flags
(``untouched``) were never looked at when the rules were mended; the other half (``tuned``) was. Contrast sets:
Gardner et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from symptomchat.corpus.schema import Emergency, _Record, validate
from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.suites import bootstrap_interval
from symptomchat.files import read_jsonl
from symptomchat.runtime.assistant import Assistant

PAIRS = Path(__file__).with_name("minimal_pairs.jsonl")
FRESH = Path(__file__).with_name("fresh_emergencies.jsonl")
BLIND = Path(__file__).with_name("blind_emergencies.jsonl")
MARGIN = math.log(4 / 3)
"""Log odds that the named conditions must lose from ``a`` to ``b``: a quarter of the odds. Set before measuring."""
KINDS = ("denied", "past", "other person")


class Pair(_Record):
    """Two texts that differ in whether, when or in whom a finding is.

    Attributes:
        part: what must change: the probability of ``lose``, or the red flag ``rule``.
        lose: canonical names of the conditions that together must lose probability.
        half: of a red-flag pair, whether its mistakes were looked at.
    """

    part: Literal["condition", "red flag"]
    kind: Literal["denied", "past", "other person"]
    voice: str
    system: str = ""
    lose: tuple[str, ...] = ()
    rule: str = ""
    half: Literal["", "tuned", "untouched"] = ""
    a: str = Field(min_length=8)
    b: str = Field(min_length=8)

    @model_validator(mode="after")
    def _whole(self) -> Pair:
        if self.a == self.b:
            raise ValueError("a and b are the same text")
        if self.part == "condition" and not self.lose:
            raise ValueError("lose: names no condition")
        if self.part == "red flag" and not (self.rule and self.half):
            raise ValueError("a red-flag pair needs rule and half")
        return self


class Fresh(_Record):
    """An emergency, or something harmless near one."""

    rule: str
    emergency: bool
    voice: str
    half: Literal["tuned", "untouched"]
    text: str = Field(min_length=8)


def load_pairs(path: Path = PAIRS) -> list[Pair]:
    """Read pairs.

    Raises:
        SymptomChatError: naming file, line and field of the first one that cannot be used.
    """
    return [validate(row, Pair, f"{path}: line {line}") for line, row in read_jsonl(path)]


def load_fresh(path: Path = FRESH) -> list[Fresh]:
    """Read emergencies and their harmless neighbours; raises as ``load_pairs`` does."""
    return [validate(row, Fresh, f"{path}: line {line}") for line, row in read_jsonl(path)]


def log_odds(p: float) -> float:
    """Natural log odds, cut off at one in a million million."""
    p = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(p / (1 - p))


def fall(before: np.ndarray, after: np.ndarray, places: Sequence[int]) -> float:
    """Log odds that the conditions at ``places`` of two distributions ``[C]`` lose together."""
    at = list(places)
    return log_odds(float(before[at].sum())) - log_odds(float(after[at].sum()))


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """Share of hits with its 95 % bootstrap interval; nothing but the number where there are none."""
    if not hits:
        return {"pairs": 0}
    return {"pairs": len(hits), "right": float(np.mean(hits)), "interval": list(bootstrap_interval(hits))}


def condition_rows(assistant: Assistant, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Share of pairs whose conditions lose at least ``MARGIN``, by kind and over all.

    Pairs none of whose conditions the bundle knows are left out. ``median fall`` is in log odds;
    ``first in a`` is the share whose condition comes first where the finding is present.
    """
    number = {c["name"]: at for at, c in enumerate(assistant.conditions, start=1)}
    falls: dict[str, list[float]] = {kind: [] for kind in KINDS}
    first: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for pair in pairs:
        places = [number[name] for name in pair.lose if name in number]
        if pair.part != "condition" or not places:
            continue
        before, after = (assistant.judge(text).probabilities for text in (pair.a, pair.b))
        falls[pair.kind].append(fall(before, after, places))
        first[pair.kind].append(int(before[1:].argmax()) + 1 in places)
    falls["all"] = [value for kind in KINDS for value in falls[kind]]
    first["all"] = [value for kind in KINDS for value in first[kind]]
    rows = []
    for kind, values in falls.items():
        row: dict[str, Any] = {"kind": kind, **share([value >= MARGIN for value in values])}
        if values:
            row |= {"median fall": float(np.median(values)), "first in a": float(np.mean(first[kind]))}
        rows.append(row)
    return rows


def red_flag_rows(check: Callable[[str], Sequence[Any]], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Share of red-flag pairs that fire on ``a`` and stay silent on ``b``, by half and kind."""
    rows = []
    for half in ("tuned", "untouched"):
        for kind in (*KINDS, "all"):
            chosen = [p for p in pairs if p.part == "red flag" and p.half == half and kind in (p.kind, "all")]
            fired = [(bool(check(p.a)), bool(check(p.b))) for p in chosen]
            rows.append(
                {"kind": kind, "half": half, **share([a and not b for a, b in fired])}
                | ({"fires on a": float(np.mean(fired, axis=0)[0])} if fired else {})
                | ({"silent on b": 1 - float(np.mean(fired, axis=0)[1])} if fired else {})
            )
    return rows


def fresh_rows(check: Callable[[str], Sequence[Any]], texts: Sequence[Fresh]) -> list[dict[str, Any]]:
    """Recall on emergencies in fresh words, and false alarms on harmless neighbours, by half.

    ``recall`` counts any red flag, since that is what a person sees; ``the right rule`` counts the meant one.
    """
    rows = []
    for half in ("tuned", "untouched"):
        found = [[f.id for f in check(t.text)] for t in texts if t.half == half and t.emergency]
        meant = [t.rule for t in texts if t.half == half and t.emergency]
        alarms = [bool(check(t.text)) for t in texts if t.half == half and not t.emergency]
        if not found or not alarms:
            raise SymptomChatError(
                f"{FRESH}: has no emergency or no harmless text in half {half}; give both in both"
            )
        any_flag = [bool(ids) for ids in found]
        rows.append(
            {
                "half": half,
                "emergencies": len(found),
                "recall": float(np.mean(any_flag)),
                "recall interval": list(bootstrap_interval(any_flag)),
                "the right rule": float(np.mean([rule in ids for rule, ids in zip(meant, found)])),
                "harmless": len(alarms),
                "false alarms": float(np.mean(alarms)),
                "false alarms interval": list(bootstrap_interval(alarms)),
            }
        )
    return rows


def load_blind(path: Path = BLIND) -> list[Emergency]:
    """Emergencies and harmless neighbours written without sight of rules and training texts; nothing learns from them."""
    return [validate(row, Emergency, f"{path}: line {line}") for line, row in read_jsonl(path)]


def blind_rows(assistant: Assistant, texts: Sequence[Emergency] | None = None) -> list[dict[str, Any]]:
    """Recall and false alarms on blind texts: the rules, the classifier, both, and the urgency that is shown."""
    texts = load_blind() if texts is None else texts
    labels = np.array([t.emergency for t in texts])
    heard: dict[str, list[bool]] = {"rules": [], "classifier": [], "both": [], "urgency shown": []}
    for text in texts:
        fired, rings = bool(assistant.red_flags.check(text.text)), assistant.alarm.rings(text.text)
        for name, hit in (("rules", fired), ("classifier", rings), ("both", fired or rings)):
            heard[name].append(hit)
        # Urgency is final before anything is generated.
        heard["urgency shown"].append(next(assistant.stream(text.text)).triage == "emergency")
    rows = []
    for name, hits in heard.items():
        found = np.array(hits)
        rows.append(
            {
                "kind": name,
                "emergencies": int(labels.sum()),
                "recall": float(found[labels].mean()),
                "recall interval": list(bootstrap_interval(found[labels].tolist())),
                "harmless": int((~labels).sum()),
                "false alarms": float(found[~labels].mean()),
                "false alarms interval": list(bootstrap_interval(found[~labels].tolist())),
            }
        )
    return rows


def pair_rows(assistant: Assistant) -> dict[str, list[dict[str, Any]]]:
    """Every figure of this module for a bundle."""
    pairs = load_pairs()
    return {
        "conditions": condition_rows(assistant, pairs),
        "red flags": red_flag_rows(assistant.red_flags.check, pairs),
        "fresh emergencies": fresh_rows(assistant.red_flags.check, load_fresh()),
        "blind emergencies": blind_rows(assistant),
    }
