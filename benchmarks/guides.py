"""Refresh what docs/android.md and docs/ios.md say of the shipped bundle: ``python benchmarks/guides.py [--check]``.

In: the shipped bundle, its answer to one question, and ``docs/results/arm64.json``. Out: both guides with the parts
between ``<!-- name -->`` and ``<!-- /name -->`` written anew (names: ``facts``, ``signatures``, ``answer``, ``arm64``).
``--check`` writes nothing and leaves with exit code 1 where a guide would change.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from symptomchat.errors import SymptomChatError  # noqa: E402
from symptomchat.files import read_json, read_text, write_text  # noqa: E402
from symptomchat.language import tokenizer as marks  # noqa: E402
from symptomchat.phone.bundle import model_file  # noqa: E402
from symptomchat.runtime import triage  # noqa: E402
from symptomchat.runtime.assistant import Assistant, load  # noqa: E402
from symptomchat.runtime.decoding import PARTS  # noqa: E402

GUIDES = (ROOT / "docs" / "android.md", ROOT / "docs" / "ios.md")
ARM64 = ROOT / "docs" / "results" / "arm64.json"
NAMED = {"symptoms": "findings", "treatments": "treatments"}
QUESTION = "crushing chest pain spreading to my left arm"


def facts(assistant: Assistant) -> str:
    """Table of ids and numbers that a port meets."""
    grammar = assistant.grammar
    rows: dict[str, Any] = {
        "format": assistant.manifest["format"],
        "model file": f"`{model_file(assistant.manifest)}`",
        "tokens in all": grammar.size,
        "conditions": len(assistant.conditions),
        "red-flag rules": len(assistant.red_flags.rules),
        "temperature": round(assistant.calibrator.temperature, 4),
        "threshold": round(assistant.calibrator.threshold, 4),
        "window": triage.WINDOW,
    }
    for part, trie in zip(PARTS, assistant.vocabulary.tries, strict=True):
        rows[f"{NAMED[part]} that an answer may name"] = len(trie.text)
    tokens = [marks.PAD, marks.UNKNOWN, marks.USER, marks.ANSWER, marks.END, marks.ITEM, marks.TREATMENTS]
    tokens += [*map(marks.intent_token, marks.INTENTS), marks.NONE]
    rows |= {f"`{token}`": grammar.tokenizer.token_to_id(token) for token in tokens}
    return "\n".join(
        ["| fact | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


def signatures(assistant: Assistant) -> str:
    """Table of the signatures' tensors; those that differ in their last number alone share a row."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(assistant.folder / model_file(assistant.manifest)), num_threads=1)
    lines = ["| signature | side | tensor | shape | type |", "|---|---|---|---|---|"]
    for signature in ("rank", "prefill", "decode"):
        runner = interpreter.get_signature_runner(signature)
        for side, details in (("in", runner.get_input_details()), ("out", runner.get_output_details())):
            groups: dict[str, list[str]] = {}
            for name in sorted(details):
                groups.setdefault(re.sub(r"\d+$", "", name), []).append(name)
            for names in groups.values():
                shape, kind = details[names[0]]["shape"].tolist(), np.dtype(details[names[0]]["dtype"]).name
                shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
                lines.append(f"| `{signature}` | {side} | `{shown}` | {shape} | {kind} |")
    return "\n".join(lines)


def answer(assistant: Assistant) -> str:
    """What the example prints; the advice is shortened."""
    found = assistant.ask(QUESTION)
    lines = [
        f"EMERGENCY: {flag.name}: {flag.advice.split(',')[0]}, …"
        for flag in assistant.red_flags.check(QUESTION)
    ]
    lines += [f"{100 * c.probability:.1f} % {c.name}" for c in found.conditions[:3]]
    doubt = "may be made up" if found.flagged else "not flagged"
    lines.append(f"confidence {found.confidence}, {doubt}, {found.triage}")
    lines += [
        f"- {c.text}{'' if c.grounded else ' (not in the sources)'}"
        for c in (*found.symptoms, *found.treatments)
    ]
    return "\n".join(["```", *lines, "```"])


def processors(result: dict[str, Any]) -> str:
    """What another kind of processor changes, from ``docs/results/arm64.json``."""
    total = result["questions"]
    same = ", ".join(
        f"{name} {result[name]}"
        for name in ("token ids", "first condition", "first three", "flag", "red flags", "claims")
    )
    return (
        "Another kind of processor rounds int8 activations otherwise. Measured with `python benchmarks/arm64.py` on "
        f"{result['machine']}, of {total} questions the same: {same}. The confidence differs by at most "
        f"{result['largest difference of confidence']}, by more than {result['tolerance']} for "
        f"{result['above the tolerance']}."
    )


def refreshed(text: str, parts: dict[str, str], guide: Path) -> str:
    """A guide with its parts written anew.

    Raises:
        SymptomChatError: a part's marks are missing.
    """
    for name, content in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise SymptomChatError(f"{guide}: the marks {begin} and {end} are missing; put them back")
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; bad input is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python benchmarks/guides.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where a guide is old"
    )
    arguments = parser.parse_args(argv)
    try:
        assistant = load(ROOT / "models" / "symptomchat")
        parts = {"facts": facts(assistant), "signatures": signatures(assistant), "answer": answer(assistant)}
        parts["arm64"] = processors(read_json(ARM64))
        old = []
        for guide in GUIDES:
            text = read_text(guide)
            fresh = refreshed(text, parts, guide)
            if fresh != text:
                old.append(guide.name)
                if not arguments.check:
                    write_text(guide, fresh)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    state = "old" if arguments.check else "written anew"
    print(f"guides: {', '.join(old)} {state}" if old else "guides: up to date")
    return 1 if old and arguments.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
