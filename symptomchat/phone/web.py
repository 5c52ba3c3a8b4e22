"""The phone app: builds ``app/phone/`` with a bundle into a folder of static files, and serves that folder.

In: a bundle and the sources of the page. Out: a folder that any static host can serve, with the model itself, the
WebAssembly that runs it, and ``precache.js``, which tells the service worker what to keep and under which version.
The word lists, patterns and sentences of the Python runtime go into the page at this step, so that they have one
source. Building needs Node.js and npm; serving needs the standard library alone.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from symptomchat.errors import SymptomChatError
from symptomchat.files import ROOT, read_text, sha256, write_json, write_text
from symptomchat.phone.bundle import MANIFEST, REQUIRED, model_file, verify

SOURCES = ROOT / "app" / "phone"
OUTPUT = ROOT / "dist" / "phone"
PORT = 8600
NODE = 20
"""Oldest version of Node.js that builds the app."""
_BUILD = "build.json"
_PRECACHE = "precache.js"
_UNCACHED = frozenset([_BUILD, _PRECACHE, "sw.js"])
"""Files that the service worker does not keep: its own, and what only this module reads."""
_MADE = frozenset(["node_modules", "dist"])


def constants() -> dict[str, Any]:
    """What the page takes from the Python runtime: word lists, patterns, sentences, marks and limits."""
    from symptomchat.language import tokenizer as marks
    from symptomchat.runtime import alarm, assistant, confidence, decoding, grounding, regions, triage

    names = ("user", "answer", "unknown", "end", "item", "treatments", "none")
    return {
        "marks": {name: getattr(marks, name.upper()) for name in names},
        "intents": {intent: marks.intent_token(intent) for intent in marks.INTENTS},
        "features": confidence.FEATURES,
        "longestQuestion": assistant.LONGEST_QUESTION,
        "shown": assistant.SHOWN,
        "notice": assistant.NOTICE,
        "emergency": assistant.EMERGENCY,
        "sounds": assistant.SOUNDS,
        "notCounted": assistant.NOT_COUNTED,
        "alarmShortest": alarm.SHORTEST,
        "alarmLongest": alarm.LONGEST,
        "alarmLeast": alarm.LEAST,
        "alarmParts": alarm.PARTS.pattern,
        "asked": assistant.ASKED.pattern,
        "named": assistant.NAMED,
        "asking": assistant.ASKING.pattern,
        "case": assistant.CASE.pattern,
        "treated": assistant.TREATED.pattern,
        "notAName": sorted(assistant.NOT_A_NAME),
        "stop": sorted(grounding.STOP),
        "decoding": {
            "bonus": decoding.BONUS,
            "most": decoding.MOST,
            "full": decoding.FULL,
            "parts": decoding.PARTS,
        },
        "window": triage.WINDOW,
        "negations": sorted(triage.NEGATIONS),
        "farReaching": triage.FAR_REACHING,
        "afterwards": triage.AFTERWARDS,
        "reset": sorted(triage.RESET),
        "manner": sorted(triage.MANNER),
        "self": sorted(triage.SELF),
        "looksOn": sorted(triage.LOOKS_ON),
        "written": triage.WRITTEN,
        "past": triage.PAST.pattern,
        "nose": triage.NOSE.pattern,
        "now": triage.NOW.pattern,
        "told": triage.TOLD.pattern,
        "hypothetical": triage.HYPOTHETICAL,
        "order": triage.ORDER,
        "enough": triage.ENOUGH,
        "regions": regions.REGIONS,
        "patient": _patient(),
        **_talk(),
    }


def _patient() -> dict[str, Any]:
    """What the page needs to tell the patient's own clauses from others."""
    from symptomchat.runtime import patient

    patterns = {
        "somebody": patient.SOMEBODY,
        "stranger": patient.STRANGER,
        "caredFor": patient.CARED_FOR,
        "anyone": patient.ANYONE,
        "first": patient.FIRST,
        "singular": patient.SINGULAR,
        "being": patient.BEING,
        "worry": patient.WORRY,
        "report": patient.REPORT,
        "third": patient.THIRD,
        "over": patient.OVER,
        "ended": patient.ENDED,
        "lasts": patient.LASTS,
        "counts": patient.COUNTS,
        "cut": patient.CUT,
        "place": patient.PLACE,
    }
    return {
        "patterns": {name: pattern.pattern for name, pattern in patterns.items()},
        "trailing": patient.TRAILING.pattern,
        "shortestWord": patient.SHORTEST_WORD,
        "enoughTold": patient.ENOUGH_TOLD,
        "early": patient.EARLY,
        "shortNames": sorted(patient.SHORT_NAMES),
    }


def _talk() -> dict[str, Any]:
    """What the page's conversation takes from the modules that Python's conversation is made of."""
    from symptomchat.runtime import dialogue, explain, findings, inquiry, reading

    patterns = {
        "newTopic": reading.NEW_TOPIC,
        "followUp": reading.FOLLOW_UP,
        "correction": reading.CORRECTION,
        "denied": reading._DENIED,
        "deniedVerb": reading._DENIED_VERB,
        "question": reading._QUESTION,
        "treated": reading._TREATED,
        "shown": reading._SHOWN,
        "urgent": reading._URGENT,
    }
    return {
        "reading": {
            **{name: pattern.pattern for name, pattern in patterns.items()},
            "replies": reading._REPLIES,
            "opposites": {word: sorted(others) for word, others in sorted(reading.OPPOSITES.items())},
            "empty": sorted(reading._EMPTY),
            "bare": sorted(reading._BARE),
        },
        "findings": {
            "word": findings.WORD.pattern,
            "fillers": sorted(findings.FILLERS),
            "noImplication": sorted(findings.NO_IMPLICATION),
            "mostFrequent": findings.MOST_FREQUENT,
            "leastFrequent": findings.LEAST_FREQUENT,
            "firstRank": findings.FIRST_RANK,
            "lastRank": findings.LAST_RANK,
            "background": findings.BACKGROUND,
        },
        "inquiry": {
            "yes": inquiry.YES,
            "no": inquiry.NO,
            "unsure": inquiry.UNSURE,
            "answers": inquiry.ANSWERS,
            "sure": inquiry.SURE,
            "leastGain": inquiry.LEAST_GAIN,
            "mostQuestions": inquiry.MOST_QUESTIONS,
            "considered": inquiry.CONSIDERED,
            "yesWeight": inquiry.YES_WEIGHT,
            "expertWeight": inquiry.EXPERT_WEIGHT,
            "asked": inquiry.Question("{}", (), 0.0).text,
        },
        "dialogue": {"shortened": dialogue.SHORTENED, "answersOnly": dialogue.ANSWERS_ONLY},
        "explain": {
            "mostPasses": explain.MOST_PASSES,
            "matters": explain.MATTERS,
            "tellNothing": sorted(explain.TELL_NOTHING),
        },
    }


def build(bundle: Path, output: Path = OUTPUT) -> str:
    """Build the app with a bundle; a folder that already holds this very build is left as it is.

    Args:
        bundle: folder of a bundle; its model, tokenizer, knowledge, confidence and manifest go into the app.
        output: folder to write; it is replaced as a whole, and only once the new one is complete.

    Returns:
        the version: sixteen hexadecimal digits that change whenever a file of the app does.

    Raises:
        SymptomChatError: the bundle is damaged, Node.js or npm is missing or fails, or the folder holds other things.
    """
    manifest = verify(bundle)
    source = _source(bundle)
    built = _built(output)
    if built is not None and built == {"source": source, "version": version(output)}:
        return str(built["version"])
    if built is None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SymptomChatError(f"{output}: holds something other than a built app; name another folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
            made = Path(folder) / "app"
            _run([_tool("node"), "build.mjs", str(made)], prepare(Path(folder) / "work"))
            (made / "model").mkdir()
            for name in (MANIFEST, model_file(manifest), *REQUIRED):
                shutil.copyfile(bundle / name, made / "model" / name)
            made_version = version(made)
            write_text(made / _PRECACHE, _precache(made, made_version))
            write_json(made / _BUILD, {"source": source, "version": made_version})
            if output.exists():
                output.replace(Path(folder) / "old")
            made.replace(output)
    except OSError as error:
        raise SymptomChatError(
            f"{output}: cannot be written ({error.strerror}); choose another folder or mend its permissions"
        ) from error
    return made_version


def prepare(work: Path) -> Path:
    """Copy the sources to a new folder, add the constants, and install the pinned npm packages there.

    Raises:
        SymptomChatError: Node.js or npm is missing or too old, or the packages cannot be installed.
    """
    if not (SOURCES / "package.json").is_file():
        raise SymptomChatError(
            f"{SOURCES}: is missing; install from a copy of the repository with pip install -e ."
        )
    found = _run([_tool("node"), "--version"], SOURCES).strip()
    major = re.match(r"v(\d+)", found)
    if major is None or int(major.group(1)) < NODE:
        raise SymptomChatError(
            f"node: is version {found}, the phone app needs {NODE} or later; install a newer Node.js"
        )
    shutil.copytree(SOURCES, work, ignore=shutil.ignore_patterns(*_MADE))
    write_text(
        work / "src" / "constants.js", f"export default {json.dumps(constants(), ensure_ascii=False)};\n"
    )
    # No package's own script runs: the packages are used as they are.
    _run([_tool("npm"), "ci", "--ignore-scripts", "--prefer-offline", "--fetch-retries=1"], work)
    return work


def version(folder: Path) -> str:
    """Hash of the content and the names of all files that the app is made of."""
    digest = hashlib.sha256()
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name not in (_BUILD, _PRECACHE):
            digest.update(f"{name}\n{sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def server(folder: Path, port: int = PORT) -> ThreadingHTTPServer:
    """An HTTP server of a built app for this machine alone, not started yet; port 0 takes any free one.

    Raises:
        SymptomChatError: the folder holds no built app, or the port cannot be had.
    """
    if _built(folder) is None:
        raise SymptomChatError(f"{folder}: holds no built app; build one with symptomchat phone --build-only")
    handler = functools.partial(_Handler, directory=str(folder))
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SymptomChatError(
            f"port {port}: cannot be opened ({reason}); choose another with --port"
        ) from error


def serve(folder: Path, port: int = PORT) -> None:
    """Serve a built app until interrupted.

    Raises:
        SymptomChatError: the folder holds no built app, or the port cannot be had.
    """
    with server(folder, port) as running:
        _say(f"open http://localhost:{running.server_port}/ (Ctrl+C stops)")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            _say("stopped")


class _Handler(SimpleHTTPRequestHandler):
    """Static files with the headers of an isolated page."""

    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".json": "application/json",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
        ".svg": "image/svg+xml",
        ".tflite": "application/octet-stream",
    }

    def end_headers(self) -> None:
        """Add the headers that isolate the page and its worker."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-cache")
        # A page's policy does not reach its worker; the worker takes it from the header of its own script.
        self.send_header("Content-Security-Policy", _policy(Path(self.directory)))
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: who asks, and when, is nobody's business."""


@functools.lru_cache(maxsize=4)
def _policy(folder: Path) -> str:
    """The content security policy that the page itself states."""
    stated = re.search(
        r'http-equiv="Content-Security-Policy" content="([^"]+)"', read_text(folder / "index.html")
    )
    return stated.group(1) if stated else "default-src 'self'"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _source(bundle: Path) -> str:
    """Hash of all that a build is made of: the page's sources, the constants, this module, the bundle's manifest."""
    digest = hashlib.sha256(json.dumps(constants(), sort_keys=True).encode())
    sources = [path for path in _files(SOURCES) if not _MADE & set(path.relative_to(SOURCES).parts)]
    for path in (*sources, Path(__file__), bundle / MANIFEST):
        digest.update(f"{path.name}\n{sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def _built(folder: Path) -> dict[str, Any] | None:
    """What a folder says about its build, or None where it holds no built app."""
    try:
        value = json.loads((folder / _BUILD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and "version" in value else None


def _precache(folder: Path, made_version: str) -> str:
    """The script that tells the service worker what to keep."""
    files = [
        {"url": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size}
        for path in _files(folder)
        if path.name not in _UNCACHED
    ]
    return f"self.PRECACHE = {json.dumps({'version': made_version, 'files': files})};\n"


def _tool(name: str) -> str:
    """Path of a program.

    Raises:
        SymptomChatError: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise SymptomChatError(
            f"{name}: is not installed; install Node.js {NODE} or later with npm, then run the command again"
        )
    return path


def _run(command: list[str], folder: Path) -> str:
    """Output of a program; its failure becomes one line with what it called an error."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", env={**os.environ, "CI": "1"}
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        # npm's first line is a code alone ("code EAI_AGAIN"); the longest of the first few says what happened.
        marked = [line for line in lines if re.match(r"(npm )?(ERR!|error|✘)", line, re.IGNORECASE)] or lines
        reason = max(marked[:4], key=len, default=f"exit code {done.returncode}")[:300]
        name = " ".join([Path(command[0]).stem, *command[1:2]])
        remedy = "check that the npm registry can be reached" if "ci" in command else "mend app/phone"
        raise SymptomChatError(f"{name}: failed ({reason}); {remedy} and try again")
    return done.stdout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``symptomchat phone``."""
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="bundle (default: the shipped one)")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FOLDER", help="folder of the app (default dist/phone)"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"port to serve on (default {PORT})")
    parser.add_argument("--build-only", action="store_true", help="build the folder and do not serve it")


def command(arguments: argparse.Namespace) -> None:
    """Build the phone app, and serve it on this machine."""
    from symptomchat.runtime.assistant import default_model

    made_version = build(arguments.model or default_model(), arguments.output)
    total = sum(path.stat().st_size for path in _files(arguments.output))
    _say(f"{arguments.output}: version {made_version}, {total / 2**20:.1f} MiB")
    if not arguments.build_only:
        serve(arguments.output, arguments.port)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Entry point of ``python -m symptomchat.phone.web``."""
    from symptomchat.cli import run

    parser = argparse.ArgumentParser(prog="python -m symptomchat.phone.web", description=command.__doc__)
    add_arguments(parser)
    parser.set_defaults(run=command)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
