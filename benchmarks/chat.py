"""How soon the chat is there and answers, as a person at the browser sees it.

Starts ``app/chat.py``, opens it in a headless Chromium, types messages, and takes the time in the page itself: from
the key that sends a message to the frame that shows the first words of its answer, and to the frame that shows the
last. In: nothing but the bundle; Chromium and chromedriver are needed. Out: a table of milliseconds, median and
slowest. ``--core 0`` keeps the server on one processor core; the browser uses the others.

Run: ``python benchmarks/chat.py --core 0``
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symptomchat.errors import SymptomChatError
from symptomchat.files import ROOT

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
PATIENCE = 120
"""Seconds after which a page that does not come counts as broken."""
CONVERSATION = (
    "it burns when I pee and I keep running to the loo",
    "and it began two days ago",
    "new topic: throbbing headache on one side, light hurts my eyes and I feel sick",
    "also my sister has migraine",
    "no fever",
    "and it gets worse when I climb the stairs",
    "new topic: itchy eyes, sneezing and a runny nose whenever the grass is cut",
    "and my throat is a little sore",
    "what are the symptoms of gout?",
    "new topic: my big toe is red, swollen and so sore that I can't bear the sheet on it",
    "it started at night",
    "new topic: I have had a cough and a high temperature since Monday",
)
PAUSE = 0.5
"""Seconds between the last letter of a message and the key that sends it, as people have: chromedriver types so fast
that the page would still be busy with the letters."""
LONG = 6
"""Messages after which a conversation counts as long: the page then draws many turns each time."""
WATCH = """
window.seen = {};
if (!window.watching) {
  window.watching = true;
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') { window.seen = {before: document.querySelectorAll('[data-testid="stChatMessage"]').length,
      sent: performance.now()}; }
  }, true);
  const look = () => {
    const seen = window.seen;
    if (seen.sent === undefined || seen.whole !== undefined) return;
    const answer = document.querySelectorAll('[data-testid="stChatMessage"]')[seen.before + 1];
    if (!answer) return;
    const text = answer.innerText;
    if (seen.first === undefined && answer.querySelector('.sc')) seen.first = performance.now() - seen.sent;
    if (text.includes('ms on this machine')) {
      seen.whole = performance.now() - seen.sent;
      if (window.tell) window.tell(seen);
    }
  };
  new MutationObserver(() => requestAnimationFrame(look)).observe(document.body,
    {subtree: true, childList: true, characterData: true});
}
"""
SEND = """
window.tell = arguments[1];
const key = {key: 'Enter', code: 'Enter', keyCode: 13, which: 13, bubbles: true, cancelable: true};
arguments[0].dispatchEvent(new KeyboardEvent('keydown', key));
"""


class Server:
    """A Streamlit server of one data folder, which can be stopped and started again.

    Args:
        home: folder of the conversations.
        core: processor core to keep it on, where the platform can do that.
    """

    def __init__(self, home: Path, core: int | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home, self.core, self.url = home, core, f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "streamlit", "run", "app/chat.py",
                "--server.port", str(self.port), "--server.address", "127.0.0.1", "--server.fileWatcherType", "none",
            ],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "SYMPTOMCHAT_HOME": str(self.home)},
        )  # fmt: skip
        if self.core is not None:
            os.sched_setaffinity(self.process.pid, {self.core})
        wait_until(self._listens, "the server did not start")

    def _listens(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1)
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def wait_until(condition: Callable[[], Any], otherwise: str = "it did not happen in time") -> None:
    """Look fifty times a second.

    Raises:
        SymptomChatError: with ``otherwise``, after ``PATIENCE`` seconds.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise SymptomChatError(otherwise)
        time.sleep(0.02)


def open_browser(profile: Path) -> Chrome:
    """A headless Chromium with a profile of its own, which asks nothing of the network.

    Raises:
        SymptomChatError: Chromium, chromedriver or selenium is not installed.
    """
    try:
        from selenium import webdriver
    except ImportError as error:
        raise SymptomChatError('selenium is missing; pip install -e ".[dev]"') from error
    if not (CHROMIUM and DRIVER):
        raise SymptomChatError("chromium and chromedriver are not installed; install both")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=900,1400",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def usable(browser: Chrome) -> bool:
    """Whether something can be typed and the page says that it can be asked."""
    return bool(
        browser.execute_script(
            "const box = document.querySelector('[data-testid=\"stChatInput\"] textarea');"
            "return box !== null && !box.disabled && document.body.innerText.includes('For example');"
        )
    )


def opening(browser: Chrome, url: str) -> float:
    """Milliseconds until the page of a server can be used."""
    start = time.perf_counter()
    browser.get(url)
    wait_until(lambda: usable(browser), "the page did not open")
    return 1000 * (time.perf_counter() - start)


def answering(browser: Chrome, message: str) -> tuple[float, float]:
    """Milliseconds from sending a message to the first words of its answer, and to the last.

    Raises:
        SymptomChatError: no answer came.
    """
    from selenium.common.exceptions import TimeoutException

    browser.execute_script(WATCH)
    box = browser.find_element("css selector", '[data-testid="stChatInput"] textarea')
    box.send_keys(message)
    time.sleep(PAUSE)
    # The page sends the key and tells when it is done: asking it again and again would keep it busy meanwhile.
    browser.set_script_timeout(PATIENCE)
    try:
        seen = browser.execute_async_script(SEND, box)
    except TimeoutException as error:
        raise SymptomChatError(f"no answer to '{message}'") from error
    # The next question and the marked words follow the answer; a message that comes before them would wait.
    wait_until(
        lambda: not browser.find_elements("css selector", '[data-test-script-state="running"]'),
        "still running",
    )
    return float(seen["first"]), float(seen["whole"])


def measure(rounds: int, core: int | None) -> dict[str, list[float]]:
    """Milliseconds of every measured thing, by its name."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="chat-", ignore_cleanup_errors=True) as folder:
        browser = open_browser(Path(folder) / "profile")
        server = Server(Path(folder) / "home", core)
        try:
            for _ in range(rounds):
                browser.get("about:blank")
                start = time.perf_counter()
                server.start()
                opening(browser, server.url)
                cold = 1000 * (time.perf_counter() - start)
                found.setdefault("start of the server to a usable page", []).append(cold)
                warm = opening(browser, server.url)
                found.setdefault("load of the page from a running server", []).append(warm)
                for at, message in enumerate(CONVERSATION):
                    first, whole = answering(browser, message)
                    when = "of a new conversation" if at < LONG else f"after {LONG} and more messages"
                    found.setdefault(f"first words {when}", []).append(first)
                    found.setdefault(f"whole answer {when}", []).append(whole)
                server.stop()
        finally:
            server.stop()
            browser.quit()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that the server is started anew")
    parser.add_argument("--core", type=int, help="processor core to keep the server on (Linux)")
    options = parser.parse_args()
    try:
        found = measure(options.rounds, options.core)
    except SymptomChatError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    print("| milliseconds | median | slowest | number |")
    print("|---|---:|---:|---:|")
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.0f} | {max(times):.0f} | {len(times)} |")


if __name__ == "__main__":
    main()
