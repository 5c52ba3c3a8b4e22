"""The phone app says what the Python runtime says: its parts under node, and the whole page in a browser offline."""

import copy
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from symptomchat import SymptomChatError, load
from symptomchat.evaluation.pairs import load_pairs
from symptomchat.files import DATA, MODELS, read_jsonl, write_json
from symptomchat.phone import reference, web
from symptomchat.phone.bundle import MANIFEST
from symptomchat.runtime.assistant import asked_name, check_question
from symptomchat.runtime.grounding import restore_case, supported

SHIPPED = MODELS / "symptomchat"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
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
    "half a surrogate \ud83d here",
    "\x00\x01\x02\x03",
    "\ufffd\ufffd ab",
    "   \n\t ",
    "I have no fever, cough or chest pain, but my arm is weak and my speech is slurred",
    "in the film a man has crushing chest pain and is sweating",
    "I watched a series where someone has crushing chest pain, and now I have crushing chest pain too",
    "twenty years ago I had crushing chest pain and sweating, today I have it again",
    "as a boy my father had a seizure and could not stop shaking",
    "I have had crushing chest pain since last year, for years back then it was mild",
    "fever 39, neck stiffness and photophobia absent",
    "severe headache; fever and stiff neck ruled out",
    "my baby is not breathing fast, my son is not breathing",
    "my hed hurts, my fase is drooping, I cant speak and my arm is weak, blud everywhere",
    "nobody here has chest pain; none of us is chokin or vomiting blood",
    "😀 I have a sore throat 😀. My neighbour’s big toe is red. İt hurts to swallow, and my sister has a rash",
)


def without_node(reason):
    # CI installs Node.js; a missing one there must not look like success.
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The sources of the page with their packages installed."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            without_node(f"{tool} is not installed")
    try:
        return web.prepare(tmp_path_factory.mktemp("phone") / "work")
    except SymptomChatError as error:
        ping = ["npm", "ping", "--fetch-retries=0", "--fetch-timeout=10000"]
        if subprocess.run(ping, capture_output=True).returncode:
            without_node(f"the npm registry cannot be reached ({error})")
        raise


@pytest.fixture(scope="module")
def shipped():
    return load(SHIPPED)


@pytest.fixture(scope="module")
def recorded(shipped):
    """The reference questions: what the engine computed for each, and the answer that Python made of it."""
    engine, rows = shipped.engine, []

    class Recorder:
        question_tokens, answer_tokens = engine.question_tokens, engine.answer_tokens

        def prefill(self, ids):
            question = engine.prefill(ids)
            values = [float(p) for p in question.probabilities]
            rows.append({"ids": ids, "probabilities": values, "novelty": question.novelty, "tokens": []})
            return question

        def generate(self, question, condition, end, guide):
            rows[-1]["first"] = condition
            for token, log in engine.generate(question, condition, end, guide):
                rows[-1]["tokens"].append([token, log])
                yield token, log

    shipped.engine = Recorder()
    try:
        for at, text in enumerate(reference.questions()):
            answer = shipped.ask(text, f"q{at}").to_json()
            rows[-1] |= {"text": text, "id": f"q{at}", "answer": json.loads(json.dumps(answer))}
    finally:
        shipped.engine = engine
    return rows


@pytest.fixture(scope="module")
def port(work, shipped, recorded, tmp_path_factory):
    """What went into the JavaScript port and what came out."""
    rules = [row for _, row in read_jsonl(DATA / "red_flags.jsonl")]
    texts = [text for rule in rules for text in (*rule["positives"], *rule["negatives"])]
    texts += [row["text"] for _, row in read_jsonl(DATA / "out_of_scope.jsonl")][::20]
    texts += [row["text"] for _, row in read_jsonl(DATA / "presentations.jsonl")][::400]
    texts += [row["text"] for row in recorded]
    texts += [text for pair in load_pairs()[::2] for text in (pair.a, pair.b)]
    texts += [
        form.format(condition["name"])
        for condition in shipped.conditions[::80]
        for form in (
            "how is {} treated?",
            "{}",
            "Tell me about {}",
            "do I have {}?",
            "my toe hurts. is it {}?",
        )
    ]
    texts += ODD
    random = np.random.default_rng(5)
    claims = []
    for condition in shipped.conditions[::12]:
        for record in condition["symptoms"][:6]:
            said = random.choice([record, *shipped.phrasings.get(record, [])])
            claims += [[f"the {said}s", condition["symptoms"]], [said, condition["treatments"]]]
    folder = tmp_path_factory.mktemp("port")
    given = {
        "engine": {
            "question_tokens": int(shipped.engine.question_tokens),
            "answer_tokens": int(shipped.engine.answer_tokens),
        },
        "recorded": [{name: value for name, value in row.items() if name != "answer"} for row in recorded],
        "texts": texts,
        "tokens": [[token for token, _ in row["tokens"]] for row in recorded]
        + [random.integers(0, shipped.grammar.size, 20).tolist() for _ in range(300)],
        "logits": str(folder / "logits.bin"),
        "width": int(shipped.grammar.none),
        "steered": [
            {"condition": condition, "begin": 64 * at, "end": 64 * at + 64}
            for at, condition in enumerate(range(0, len(shipped.conditions), len(shipped.conditions) // 8))
        ],
        "claims": [*claims, ["mri scan ( x-ray , ecg )", ["MRI scan"]], ["of the", ["of the"]]],
        "risks": [risk for risk, _ in shipped.calibrator.thresholds],
        "shares": [0.0, 0.005, 0.015, 0.125, 0.375, 0.545, 0.5, 0.9949, 0.995, 1.0],
    }
    # A model that knows nothing and does not end early: every rule of the guide is met.
    logits = random.normal(size=(64 * len(given["steered"]), given["width"])) * 3
    logits[:, shipped.grammar.end] -= 4
    logits.astype("<f4").tofile(folder / "logits.bin")
    # JSON for JavaScript knows half a surrogate too; Python writes it as an escape.
    (folder / "input.json").write_text(json.dumps(given), encoding="utf-8")
    done = subprocess.run(
        ["node", "tests/port.mjs", str(SHIPPED), str(folder / "input.json"), str(folder / "output.json")],
        cwd=work, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return given, json.loads((folder / "output.json").read_text(encoding="utf-8"))


def test_red_flags_fire_for_the_same_texts(port, shipped):
    given, found = port
    expected = [[flag.id for flag in shipped.red_flags.check(text)] for text in given["texts"]]
    assert found["redFlags"] == expected
    assert sum(bool(fired) for fired in expected) > 300


def test_the_same_clauses_are_the_patients(port, shipped):
    given, found = port
    expected = [shipped.patient.own(text) for text in given["texts"]]
    assert found["own"] == expected
    assert sum(own != text for own, text in zip(expected, given["texts"])) > 25


def test_the_same_questions_name_a_condition(port, shipped):
    given, found = port
    expected = [shipped.named(text) for text in given["texts"]]
    assert found["named"] == expected
    assert sum(number is not None for number in expected) > 20


def test_texts_become_the_same_tokens_and_tokens_the_same_texts(port, shipped):
    given, found = port
    assert found["ids"] == [shipped.grammar.question(text) for text in given["texts"]]
    for tokens, decoded in zip(given["tokens"], found["decoded"], strict=True):
        read = shipped.grammar.read(tokens)
        assert decoded == {
            "intent": read.intent,
            "symptoms": list(read.symptoms),
            "treatments": list(read.treatments),
            "spans": [list(span) for span in read.spans],
        }


def test_the_same_logits_lead_to_the_same_claims(port, shipped):
    given, found = port
    logits = np.fromfile(given["logits"], "<f4").reshape(-1, given["width"])
    outside = 0
    for row, answer in zip(given["steered"], found["steered"], strict=True):
        record = shipped.conditions[row["condition"]]
        guide, tokens = shipped.vocabulary.guide(record), []
        for line in logits[row["begin"] : row["end"]]:
            tokens.append(guide.choose(line))
            if tokens[-1] == shipped.grammar.end:
                break
        assert answer["tokens"] == tokens
        assert answer["named"] == [[e.part, e.text, e.begin, e.end] for e in guide.named]
        outside += sum(e.text not in record[("symptoms", "treatments")[e.part]] for e in guide.named)
    assert len(found["steered"]) >= 8 and outside


def test_names_and_bad_questions_are_seen_alike(port):
    given, found = port
    assert found["asked"] == [asked_name(text) for text in given["texts"]]
    complaints = []
    for text in given["texts"]:
        try:
            check_question(text)
            complaints.append(None)
        except SymptomChatError as error:
            complaints.append(str(error))
    assert found["complaints"] == complaints
    assert sum(complaint is not None for complaint in complaints) >= 3


def test_claims_are_supported_by_the_same_records(port, shipped):
    given, found = port
    expected = [supported(claim, records, shipped.phrasings) for claim, records in given["claims"]]
    assert found["supported"] == expected
    assert None in expected and sum(record is not None for record in expected) > 100
    assert found["cased"] == [restore_case(claim, shipped.cased) for claim, _ in given["claims"]]


def test_thresholds_and_percentages_are_the_same(port, shipped):
    given, found = port
    assert found["thresholds"] == [shipped.calibrator.threshold_for(risk) for risk in given["risks"]]
    assert found["percents"] == [f"{share:.0%}" for share in given["shares"]]


def test_the_same_forward_pass_gives_the_same_answer(port, recorded):
    """All fields and the reply, word for word; probabilities within rounding of their fourth decimal."""
    answers = port[1]["answers"]
    assert len(answers) == reference.COUNT
    for row, answer in zip(recorded, answers, strict=True):
        expected = copy.deepcopy(row["answer"])
        for value in (expected, answer):
            value.pop("milliseconds")
            value["numbers"] = [value.pop("confidence")]
            for part in ("conditions", "symptoms", "treatments"):
                for item in value[part]:
                    value["numbers"].append(item.pop("probability" if part == "conditions" else "confidence"))
        assert answer.pop("numbers") == pytest.approx(expected.pop("numbers"), abs=2e-4)
        assert list(answer) == list(expected)
        assert answer == expected


def test_the_reference_can_be_written_and_read(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "questions", lambda: list(reference.SPOKEN[:3]))
    assert reference.write(shipped, tmp_path / "reference.json") == 3
    entries = reference.read(tmp_path / "reference.json")
    assert [entry["text"] for entry in entries] == list(reference.SPOKEN[:3])
    assert all(len(entry["conditions"]) == 3 and entry["flagged"] for entry in entries)
    write_json(tmp_path / "other.json", {"format": "other"})
    with pytest.raises(SymptomChatError, match=r"other\.json: is not of format"):
        reference.read(tmp_path / "other.json")


def test_the_questions_are_fifty_and_of_all_kinds():
    questions = reference.questions()
    assert len(set(questions)) == 50
    assert questions == reference.questions()


def test_what_stands_in_the_way_of_a_build_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(SymptomChatError, match="is not a model bundle"):
        web.build(tmp_path, tmp_path / "app")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(SymptomChatError, match="holds something other than a built app"):
        web.build(SHIPPED, tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SymptomChatError, match=r"node: is not installed; install Node\.js 20"):
        web.build(SHIPPED, tmp_path / "app")
    assert not (tmp_path / "app").exists()


def fake_tools(folder, node, npm):
    """Programs named node and npm that do what the given lines of shell do."""
    folder.mkdir()
    for name, body in (("node", node), ("npm", npm)):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.fixture
def built(tmp_path):
    """A small folder that counts as a built app."""
    folder = tmp_path / "built"
    (folder / "wasm").mkdir(parents=True)
    policy = "default-src 'none'"
    (folder / "index.html").write_text(f'<meta http-equiv="Content-Security-Policy" content="{policy}">hello')
    (folder / "page.js").write_text("1")
    (folder / "manifest.webmanifest").write_text("{}")
    (folder / "wasm" / "a.wasm").write_bytes(b"\0asm")
    write_json(folder / "build.json", {"source": "old", "version": web.version(folder)})
    return folder


def test_a_failed_build_names_the_reason_and_leaves_the_old_app(built, tmp_path, monkeypatch):
    old = fake_tools(tmp_path / "old", "echo v12.1.0", "exit 0")
    monkeypatch.setenv("PATH", f"{old}:/usr/bin:/bin")
    with pytest.raises(SymptomChatError, match=r"is version v12\.1\.0, the phone app needs 20"):
        web.build(SHIPPED, built)
    broken = fake_tools(
        tmp_path / "broken",
        "echo v20.1.0",
        'echo "npm error code EAI_AGAIN\nnpm error request failed, no such host\nnpm error" >&2; exit 1',
    )
    monkeypatch.setenv("PATH", f"{broken}:/usr/bin:/bin")
    with pytest.raises(SymptomChatError, match=r"npm ci: failed \(.*no such host") as raised:
        web.build(SHIPPED, built)
    assert "\n" not in str(raised.value)
    assert (built / "page.js").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "built", "old"]


def test_the_version_changes_with_every_file(built):
    before = web.version(built)
    (built / "page.js").write_text("2")
    changed = web.version(built)
    (built / "page.js").write_text("1")
    assert changed != before == web.version(built)


def test_the_server_isolates_the_page_and_names_the_types(built):
    running = web.server(built, 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{running.server_port}"
    try:
        for name, kind in (
            ("", "text/html"),
            ("page.js", "text/javascript"),
            ("wasm/a.wasm", "application/wasm"),
            ("manifest.webmanifest", "application/manifest+json"),
        ):
            with urllib.request.urlopen(f"{base}/{name}", timeout=5) as response:
                assert response.headers["Content-Type"] == kind
                assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
                assert response.headers["Content-Security-Policy"] == "default-src 'none'"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/../{MANIFEST}", timeout=5)
        with pytest.raises(SymptomChatError, match=f"port {running.server_port}: cannot be opened"):
            web.server(built, running.server_port)
    finally:
        running.shutdown()
        running.server_close()


def test_only_a_built_app_is_served(tmp_path):
    with pytest.raises(SymptomChatError, match="holds no built app"):
        web.server(tmp_path, 0)


@pytest.fixture(scope="module")
def app(work, tmp_path_factory):
    """The app, built with the shipped bundle."""
    folder = tmp_path_factory.mktemp("site") / "app"
    web.build(SHIPPED, folder)
    return folder


@pytest.fixture
def phone(tmp_path):
    """A browser of the size of a phone."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM and DRIVER):
        without_node("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=500,900",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    browser.set_script_timeout(120)
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield browser
    finally:
        browser.quit()


def wait_for(browser, script, *arguments):
    """The value of a promise in the page."""
    value = browser.execute_async_script(
        f"const done = arguments[arguments.length - 1];"
        f"Promise.resolve({script}).then((value) => done({{value}}), (error) => done({{error: String(error)}}));",
        *arguments,
    )
    assert "error" not in value, value["error"]
    return value["value"]


def typed(browser, text):
    """Ask with the keyboard alone; the elements of the answer."""
    answers = len(browser.find_elements("css selector", ".answer, #talk > .problem"))
    browser.switch_to.active_element.send_keys(text + "\n")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = browser.find_elements("css selector", ".answer, #talk > .problem")
        if len(found) > answers:
            return found[-1]
        time.sleep(0.1)
    raise AssertionError(f"no answer to {text!r}")


def axe(browser, work, scheme):
    """Serious and critical findings of axe-core."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_script((work / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    found = wait_for(browser, "axe.run(document)")
    assert found["passes"], "axe-core looked at nothing"
    return [
        f"{scheme}: {finding['id']}: {finding['nodes'][0]['html'][:200]}"
        for finding in found["violations"]
        if finding["impact"] in ("serious", "critical")
    ]


@pytest.mark.long
def test_the_page_answers_as_python_does_without_a_network(app, phone, recorded):
    running = web.server(app, 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{running.server_port}/"
    phone.get(url)
    wait_for(phone, "window.symptomchat.ready")
    assert phone.execute_script("return navigator.serviceWorker.controller !== null")
    running.shutdown()
    running.server_close()

    phone.get(url)
    wait_for(phone, "window.symptomchat.ready")
    assert "Works offline" in phone.find_element("id", "state").text
    differences = []
    for row in recorded:
        expected, answer = row["answer"], wait_for(phone, "window.symptomchat.ask(arguments[0])", row["text"])
        seen = {name: answer[name] for name in ("intent", "flagged", "red_flags", "triage")}
        assert seen == {name: expected[name] for name in seen}, row["text"]
        # The same three conditions in the same order; what Python holds to be within 0.01 may change places.
        shares = {condition["name"]: condition["probability"] for condition in expected["conditions"]}
        places = [shares.get(condition["name"], 0.0) for condition in answer["conditions"][:3]]
        wanted = [condition["probability"] for condition in expected["conditions"][:3]]
        assert places == pytest.approx(wanted, abs=0.01), row["text"]
        differences.append(abs(answer["confidence"] - expected["confidence"]))
    # int8 activations are rounded at run time: where the last bit of a float differs between two processors, one of
    # them may fall to the other side, and the confidence of a few questions moves a little further (5 of 50 with the
    # model of this version, at most 0.017; 3 with the one before).
    assert sum(difference > 0.01 for difference in differences) <= 5, sorted(differences)[-5:]
    assert max(differences) < 0.03


@pytest.mark.long
def test_a_person_can_use_the_page(app, work, phone, tmp_path):
    """By keyboard at the width of a phone: order of the parts, no markup from texts, nothing sent, no barrier."""
    running = web.server(app, 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{running.server_port}/"
    try:
        phone.get(url)
        wait_for(phone, "window.symptomchat.ready")
        findings = axe(phone, work, "light") + axe(phone, work, "dark")

        answer = typed(phone, "crushing chest pain going into my left arm and I am sweating")
        parts = answer.find_elements("xpath", "./*")
        assert parts[0].get_attribute("role") == "alert" and "Call 112" in parts[0].text
        assert "urgency" in parts[-1].get_attribute("class") and "Emergency" in parts[-1].text

        answer = typed(phone, "what are the symptoms of zorbitis?")
        first = answer.find_elements("xpath", "./*")[0]
        assert "May be made up" in first.text and "zorbitis" in first.text
        assert first.find_elements("css selector", "svg")

        answer = typed(
            phone, "it burns when I pee and I go all the time <img src=x onerror=alert(1)> & <b>hot</b>"
        )
        assert not phone.find_elements("css selector", "#talk img, #talk b")
        assert "<img src=x onerror=alert(1)>" in phone.find_element("id", "talk").text
        assert len(answer.find_elements("css selector", ".bars li")) == 5

        assert "Information, not diagnosis" in phone.find_element("css selector", "header").text
        assert phone.execute_script("return document.documentElement.scrollWidth") <= 360
        assert phone.execute_script("return document.documentElement.scrollHeight") <= 740
        sent = phone.execute_script(
            "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        )
        assert sent and all(name.startswith(url) for name in sent)
        phone.find_element("css selector", "summary").send_keys("\n")
        notice, sheet = (phone.find_element("css selector", name).rect for name in (".notice", ".sheet"))
        assert sheet["y"] >= notice["y"] + notice["height"], "the settings hide the notice"
        findings += axe(phone, work, "light") + axe(phone, work, "dark")
        assert not findings, "\n".join(findings)
        picture = tmp_path / "phone.png"
        assert phone.save_screenshot(str(picture)) and picture.stat().st_size > 10_000
    finally:
        running.shutdown()
        running.server_close()
