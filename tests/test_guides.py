"""The guides for Android and iOS hold against the shipped bundle, and their code answers as Python does."""

import ctypes
import ctypes.util
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from symptomchat import SymptomChatError, load
from symptomchat.files import DATA, MODELS, ROOT, read_json, read_jsonl, write_json
from symptomchat.language import tokenizer as marks
from symptomchat.phone import reference
from symptomchat.phone.web import constants
from symptomchat.runtime import triage
from symptomchat.runtime.findings import lower

SHIPPED = MODELS / "symptomchat"
ANDROID, IOS = ROOT / "app" / "android", ROOT / "app" / "ios"
GUIDES = {"kotlin": ROOT / "docs" / "android.md", "swift": ROOT / "docs" / "ios.md"}
SOURCES = {"kotlin": ANDROID / "SymptomChat.kt", "swift": IOS / "SymptomChat.swift"}
ICU_CALLS = ("open", "close", "setText", "findNext", "start", "end")
ODD = (
    "naïve café, ﬁne ½ Straße İstanbul ΑΣ ΣΑΣ Ωμέγα ёлка й",
    "我头疼 and 熱がある",
    "😀😵‍💫 headache 🤒🤢 ❤️",
    "[SEP] [CLS] [end] [;] [treatments] <c:gout> <ask:none> [UNK]",
    "tab\tline\r\nfeed\x0b\x0c\x1c\x85\xa0x\u2028y\u3000z",
    "zero\u200bwidth\u200djoin\ufeffmark and a\u0301ccent, soft\u00adhyphen",
    "x" * 100,
    "x" * 101,
    "a" * 300 + " headache " * 250,
    "don't can’t won`t — – … “quotes” «x» ¿qué? 38.5°C 120/80 mmHg 2×3 £5 €9",
    "ألم في الرأس כאב ראש दर्द ปวดหัว 두통",
    "what is zorbitis\n",
    "Explain the çà-et-là fever?",
    "tell me about Ångström’s disease in the élite\n",
)
TOLD = (
    "I have a sore throat. My aunt has chest pain and sweats.",
    "I’ve got a rash 😵‍💫; MY FLATMATE says it burns when she pees… and my knee aches",
    "My knee aches and my colleague's big toe is red, hot and swollen.",
    "I cough at night. When I was eight my ear hurt and ran.\nİ sneeze",
    "Our daughter has a fever. A boy in her class has a stiff neck.",
    "My eyes itch. Eleven years ago I had a stabbing headache every night. I sneeze a lot.",
    "I am tired all day. My wife says I stop breathing at night.",
    "I have a lump in my breast. My mother had breast cancer.",
    "I have a headache? My fiancé has a fever. Someone at work vomits and, so, I feel sick.",
    "My neighbour has a swollen calf and is short of breath.",
    "I get palpitations, but my brother's wife's step-father, he coughs; in 2003 I had a rash that healed",
    "My step-son's belly hurts. A woman in my office has a rash and I have a cold sore",
    "and " * 100 + "I have a cough. My friend has a fever.",
)
"""Texts in which somebody else's findings, or those of the past, stand beside one's own."""
NAMING = (
    "gout",
    "What is GOUT?",
    "do I have gout?",
    "do I have gout? my toe is red",
    "how do you cure migrane",
    "how is migraine treated?",
    "back pain",
    "what helps against diabetis type 2?",
    "tell me about the flu",
    "would I recognise a stroke?",
    "he was told he has gout: what is gout?",
)
"""Questions that ask for a condition by its name, or seem to."""


@pytest.fixture(scope="module")
def shipped():
    return load(SHIPPED)


def tables(text):
    """Cells of all rows of all tables, without the marks of code."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows]


@pytest.mark.parametrize("language", GUIDES)
def test_every_tensor_of_a_guide_is_one_of_the_bundle_and_none_is_left_out(shipped, language):
    found = {}
    for row in tables(GUIDES[language].read_text(encoding="utf-8")):
        if len(row) == 5 and row[1] in ("in", "out"):
            signature, side, name, shape, kind = row
            first, last = re.fullmatch(r"\w+_(\d) … \w+_(\d)", name).groups() if "…" in name else (None, None)
            names = (
                [name]
                if first is None
                else [f"{name[:-1].split('_')[0]}_{n}" for n in range(int(first), int(last) + 1)]
            )
            sizes = tuple(int(size) for size in shape.strip("[]").split(","))
            found |= {(signature, side, one): (sizes, kind) for one in names}
    there = {}
    for signature, runner in shipped.engine._runners.items():
        for side, details in (("in", runner.get_input_details()), ("out", runner.get_output_details())):
            for name, detail in details.items():
                there[signature, side, name] = (
                    tuple(detail["shape"].tolist()),
                    np.dtype(detail["dtype"]).name,
                )
    assert found == there


@pytest.mark.parametrize("language", GUIDES)
def test_the_facts_of_a_guide_are_those_of_the_bundle(shipped, language):
    facts = {row[0]: row[1] for row in tables(GUIDES[language].read_text(encoding="utf-8")) if len(row) == 2}
    grammar, manifest = shipped.grammar, read_json(SHIPPED / "manifest.json")
    expected = {
        mark: shipped.grammar._id(mark) for mark in (marks.USER, marks.ANSWER, marks.UNKNOWN, marks.PAD)
    }
    expected |= {mark: grammar._id(mark) for mark in (marks.END, marks.ITEM, marks.TREATMENTS, marks.NONE)}
    expected |= {f"<ask:{intent}>": grammar._id(f"<ask:{intent}>") for intent in marks.INTENTS}
    expected["tokens in all"] = grammar.size
    expected["conditions"] = len(shipped.conditions)
    expected["red-flag rules"] = len(shipped.red_flags.rules)
    expected["temperature"] = round(shipped.calibrator.temperature, 4)
    expected["threshold"] = round(shipped.calibrator.threshold, 4)
    expected["window"] = triage.WINDOW
    findings, treatments = shipped.vocabulary.tries
    expected["findings that an answer may name"] = len(findings.text)
    expected["treatments that an answer may name"] = len(treatments.text)
    expected["format"] = manifest["format"]
    expected["model file"] = f"model.{manifest['precision']}.tflite"
    assert {name: facts.get(name) for name in expected} == {
        name: str(value) for name, value in expected.items()
    }
    files = {path.name for path in SHIPPED.iterdir()} - {"README.md"}
    assert all(f"`{name}`" in GUIDES[language].read_text(encoding="utf-8") for name in files)


def test_the_guides_are_as_the_bundle_and_the_measurement_write_them(capsys):
    """``python benchmarks/guides.py`` writes the tables, the example's output and what another processor changes."""
    found = importlib.util.spec_from_file_location("guides", ROOT / "benchmarks" / "guides.py")
    guides = importlib.util.module_from_spec(found)
    found.loader.exec_module(guides)
    assert guides.main(["--check"]) == 0, capsys.readouterr().out


def test_marks_that_are_gone_are_named_in_one_line():
    found = importlib.util.spec_from_file_location("guides", ROOT / "benchmarks" / "guides.py")
    guides = importlib.util.module_from_spec(found)
    found.loader.exec_module(guides)
    with pytest.raises(SymptomChatError, match="<!-- facts --> .* are missing"):
        guides.refreshed("no marks", {"facts": ""}, Path("guide.md"))


def test_the_tokenizer_is_of_the_kind_that_the_ports_are_written_for():
    spec = read_json(SHIPPED / "tokenizer.json")
    assert spec["normalizer"] == {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    assert spec["pre_tokenizer"] == {"type": "BertPreTokenizer"} and spec["post_processor"] is None
    assert spec["decoder"] == {"type": "WordPiece", "prefix": "##", "cleanup": True}
    # The ports look for no marks in a text: a blank after each bracket breaks every mark there is.
    assert all(token["content"].startswith(("[", "<c:", "<ask:")) for token in spec["added_tokens"])
    assert not any(
        token["normalized"] or token["lstrip"] or token["rstrip"] for token in spec["added_tokens"]
    )


@pytest.mark.parametrize("language", GUIDES)
def test_the_code_in_a_guide_is_the_code_of_the_app(language):
    source = "\n".join(line.strip() for line in SOURCES[language].read_text(encoding="utf-8").splitlines())
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDES[language].read_text(encoding="utf-8"), re.DOTALL)
    # Blocks that begin with a file's name are the app's own and not part of the port.
    quoted = [block for block in blocks if not block.startswith("//")]
    assert len(quoted) >= 4
    for block in quoted:
        assert "\n".join(line.strip() for line in block.strip().splitlines()) in source, block


@pytest.mark.parametrize("language", GUIDES)
def test_the_ports_copy_no_word_list(language):
    source = SOURCES[language].read_text(encoding="utf-8")
    read = set(re.findall(r'constants\.(?:words|text|number|numbers|getValue|get)\("(\w+)"\)', source))
    read |= set(re.findall(r'words\("(\w+)"\)', source))
    assert read and read <= set(constants())
    assert {"negations", "past", "now", "told", "nose", "asked", "marks", "window", "stop"} <= read
    assert {"decoding", "patient"} <= read
    for name in ("negations", "past", "now", "told", "asked", "notAName", "stop", "farReaching"):
        value = constants()[name]
        longest = max(value if isinstance(value, list | tuple) else [value], key=len)
        assert json.dumps(longest) not in source
    for pattern in constants()["patient"]["patterns"].values():
        assert json.dumps(pattern) not in source


class Icu:
    """A regular expression of ICU, whose kind Android and Apple's systems both use; patterns and texts are UTF-16."""

    def __init__(self, library, version, pattern, flags):
        self._icu = {name: getattr(library, f"uregex_{name}_{version}") for name in ICU_CALLS}
        self._icu["open"].restype = ctypes.c_void_p
        self._icu["findNext"].restype = ctypes.c_int8
        self._state = ctypes.c_int(0)
        units = pattern.encode("utf-16-le")
        regex = self._icu["open"](units, len(units) // 2, flags, None, ctypes.byref(self._state))
        self._regex = ctypes.c_void_p(regex)
        assert self._state.value <= 0, pattern

    def spans(self, text):
        """Begin and end of every match, in UTF-16."""
        state, units, found = ctypes.byref(self._state), text.encode("utf-16-le"), []
        self._icu["setText"](self._regex, units, len(units) // 2, state)
        while self._icu["findNext"](self._regex, state):
            found.append((self._icu["start"](self._regex, 0, state), self._icu["end"](self._regex, 0, state)))
        self._icu["close"](self._regex)
        assert self._state.value <= 0, text
        return found


@pytest.mark.parametrize(
    "language, call",
    [("kotlin", r"replace\({0}, {0}\)"), ("swift", r"replacingOccurrences\(of: {0}, with: {0}\)")],
)
def test_the_patterns_of_the_ports_mean_on_a_phone_what_they_mean_in_python(language, call):
    """The test of the compiled ports uses the JVM's expressions, or Swift's for Linux."""
    path = ctypes.util.find_library("icui18n")
    if path is None:
        pytest.skip("needs the library icui18n")
    library, version = ctypes.CDLL(path), path.rsplit(".", 1)[1]
    body = re.search(
        r"(?:fun fromPython\(|init\(python )(.*?)(?:Regex\(|NSRegularExpression)",
        SOURCES[language].read_text("utf-8"),
        re.S,
    )[1]
    pairs = re.findall(call.format(r'("(?:[^"\\]|\\.)*")'), body)
    assert len(pairs) == 5
    told = constants()
    patterns = [*told["patient"]["patterns"].values(), told["patient"]["trailing"]]
    patterns = [re.compile(pattern) for pattern in patterns]
    patterns += [re.compile(told[name], re.IGNORECASE) for name in ("asked", "asking", "case", "treated")]
    for pattern in patterns:
        ported = pattern.pattern
        for old, new in pairs:
            ported = ported.replace(json.loads(old), json.loads(new))
        for text in (*TOLD, *NAMING, "and " * 2400 + "my friend"):
            ignore = pattern.flags & re.IGNORECASE
            # Python alone takes "İ" for an "i" where case does not count.
            text = text.replace("İ", "I") if ignore else lower(text)
            places = [
                tuple(len(text[:at].encode("utf-16-le")) // 2 for at in match.span())
                for match in pattern.finditer(text)
            ]
            assert Icu(library, version, ported, 2 if ignore else 0).spans(text) == places, (
                ported[:80],
                text[:80],
            )


# --- the ports themselves, compiled --------------------------------------------------------------------------


def forward(folder, model):
    """Do the forward passes that a port asks for through two named pipes, as tests/ of the apps say."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    runners = {name: interpreter.get_signature_runner(name) for name in ("rank", "prefill", "decode")}
    with (folder / "requests").open("rb") as requests, (folder / "replies").open("wb") as replies:
        requests.readline()
        for signature, runner in runners.items():
            for side, details in (("in", runner.get_input_details()), ("out", runner.get_output_details())):
                for name, detail in details.items():
                    sizes = " ".join(str(size) for size in detail["shape"])
                    replies.write(f"{signature} {side} {name} {sizes}\n".encode())
        replies.write(b"\n")
        replies.flush()
        while line := requests.readline():
            _, signature, *names = line.decode().split()
            details = runners[signature].get_input_details()
            given = {}
            for name in names:
                shape = details[name]["shape"]
                values = np.frombuffer(requests.read(4 * int(np.prod(shape))), details[name]["dtype"])
                given[name] = values.reshape(shape)
            out = runners[signature](**given)
            for name in runners[signature].get_output_details():
                replies.write(np.ascontiguousarray(out[name]).tobytes())
            replies.flush()


def run_port(program, folder, *arguments):
    """Run a compiled port over the shipped bundle and give what it wrote."""
    shutil.rmtree(folder / "pipes", ignore_errors=True)
    (folder / "pipes").mkdir()
    for name in ("requests", "replies"):
        os.mkfifo(folder / "pipes" / name)
    model = next(SHIPPED.glob("*.tflite"))
    threading.Thread(target=forward, args=(folder / "pipes", model), daemon=True).start()
    write_json(folder / "constants.json", constants())
    output = folder / "output.json"
    command = [
        *program,
        str(SHIPPED),
        str(folder / "constants.json"),
        *map(str, arguments),
        "--output",
        str(output),
    ]
    environment = {**os.environ, "SYMPTOMCHAT_FORWARD": str(folder / "pipes")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return read_json(output)


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory):
    """The Android port as a program on the JVM; its compiler is the one in the package kotlin-jupyter-kernel."""
    package = importlib.util.find_spec("run_kotlin_kernel")
    if package is None or not package.submodule_search_locations or not shutil.which("javac"):
        pytest.skip("needs a JDK and pip install --no-deps kotlin-jupyter-kernel")
    jars = sorted(Path(next(iter(package.submodule_search_locations)), "jars").iterdir())
    wanted = ("kotlin-stdlib-", "kotlinx-serialization-")
    libraries = ":".join(str(jar) for jar in jars if jar.name.startswith(wanted))
    compiler = next(str(jar) for jar in jars if jar.name.endswith("-all.jar"))
    out = tmp_path_factory.mktemp("kotlin")
    stand_in = sorted(str(path) for path in (ANDROID / "test").rglob("*.java"))
    subprocess.run(["javac", "-d", str(out), *stand_in], check=True)
    command = [
        "java",
        "-cp",
        compiler,
        "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
        "-no-stdlib",
        "-no-reflect",
    ]
    command += [
        "-cp",
        f"{out}:{libraries}",
        "-d",
        str(out),
        str(ANDROID / "SymptomChat.kt"),
        str(ANDROID / "Main.kt"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return ["java", "-cp", f"{out}:{libraries}", "symptomchat.MainKt"]


@pytest.fixture(scope="module")
def swift(tmp_path_factory):
    """The iOS port as a program of this machine."""
    compiler = shutil.which("swiftc")
    if compiler is None:
        pytest.skip("needs swiftc")
    out = tmp_path_factory.mktemp("swift")
    library = ["-parse-as-library", "-emit-module", "-emit-module-path", str(out / "LiteRT.swiftmodule")]
    library += ["-emit-library", "-static", "-module-name", "LiteRT", "-o", str(out / "libLiteRT.a")]
    subprocess.run([compiler, "-O", *library, str(IOS / "test" / "LiteRT.swift")], check=True)
    command = [compiler, "-O", "-I", str(out), "-L", str(out), "-lLiteRT", "-o", str(out / "symptomchat")]
    done = subprocess.run(
        [*command, str(IOS / "SymptomChat.swift"), str(IOS / "main.swift")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [str(out / "symptomchat")]


@pytest.mark.long
@pytest.mark.parametrize("language", ["kotlin", "swift"])
def test_a_port_answers_the_reference_questions_as_python_does(request, shipped, tmp_path, language):
    program = request.getfixturevalue(language)
    file = tmp_path / "reference.json"
    reference.write(shipped, file)
    answers = run_port(program, tmp_path, "--reference", file)
    for entry, answer in zip(reference.read(file), answers, strict=True):
        for name in ("ids", "intent", "triage", "red_flags", "flagged"):
            assert answer[name] == entry[name], (entry["text"], name)
        assert answer["confidence"] == pytest.approx(entry["confidence"], abs=2e-4), entry["text"]
        assert [c["name"] for c in answer["conditions"]] == [c["name"] for c in entry["conditions"]]
        for side in ("symptoms", "treatments"):
            for name in ("text", "grounded"):
                assert [c[name] for c in answer[side]] == [c[name] for c in entry[side]], entry["text"]
            confidences = [c["confidence"] for c in entry[side]]
            assert [c["confidence"] for c in answer[side]] == pytest.approx(confidences, abs=2e-4)


@pytest.mark.long
@pytest.mark.parametrize("language", ["kotlin", "swift"])
def test_a_port_reads_texts_as_python_does(request, shipped, tmp_path, language):
    """Token ids, the patient's clauses, red flags and unknown names of odd texts, rules' phrasings and others."""
    program = request.getfixturevalue(language)
    rules = [row for _, row in read_jsonl(DATA / "red_flags.jsonl")]
    texts = [
        *ODD,
        *TOLD,
        *NAMING,
        *(text for rule in rules for text in (*rule["positives"], *rule["negatives"])),
    ]
    for name in ("presentations", "emergencies"):
        texts += [row["text"] for _, row in read_jsonl(DATA / f"{name}.jsonl")][::50]
    texts += [f"what are the symptoms of {row['name']}?" for _, row in read_jsonl(DATA / "conditions.jsonl")][
        ::10
    ]
    write_json(tmp_path / "texts.json", texts)
    for text, answer in zip(
        texts, run_port(program, tmp_path, "--texts", tmp_path / "texts.json"), strict=True
    ):
        assert answer["ids"] == shipped.grammar.question(text), text
        assert answer["own"] == shipped.patient.own(text), text
        assert answer["named"] == shipped.named(text), text
        assert answer["red_flags"] == [flag.name for flag in shipped.red_flags.check(text)], text
        assert answer["alarm"] == pytest.approx(shipped.alarm.probability(text), abs=1e-9), text
        assert answer["unknown"] == shipped._unknown_name(text), text


def test_a_damaged_bundle_would_be_seen_by_the_ports():
    """Both ports compare SHA-256 with the manifest; the manifest names every file that they open."""
    manifest = read_json(SHIPPED / "manifest.json")
    for name in (
        "tokenizer.json",
        "knowledge.json",
        "confidence.json",
        f"model.{manifest['precision']}.tflite",
    ):
        assert manifest["files"][name] == hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest()
    assert json.dumps(manifest["format"]) in SOURCES["kotlin"].read_text(encoding="utf-8")
    assert json.dumps(manifest["format"]) in SOURCES["swift"].read_text(encoding="utf-8")
