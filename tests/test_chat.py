"""The chat works in a real browser: a question is typed, the answer is read, a picture is taken."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.conftest import ROOT

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

if not (CHROMIUM and DRIVER):
    # CI installs Debian's chromium; a missing browser there must not look like success.
    if os.environ.get("CI"):
        pytest.fail("chromium and chromedriver are not installed", pytrace=False)
    pytest.skip("needs chromium and chromedriver", allow_module_level=True)


@pytest.fixture(scope="module")
def page(bundle, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "app/chat.py",
        "--server.port",
        str(port),
        "--server.address",
        "127.0.0.1",
    ]
    server = subprocess.Popen(
        [*command, "--", "--model", str(bundle)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=1)
            break
        except OSError:
            time.sleep(0.5)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=900,1400",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        browser.get(url)
        yield browser
    finally:
        browser.quit()
        server.terminate()
        server.wait(10)


def body(browser):
    return browser.find_element("tag name", "body").text


def wait_for(browser, text, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if text in body(browser):
            return
        time.sleep(0.3)
    raise AssertionError(f"'{text}' did not appear; the page reads:\n{body(browser)}")


def ask(browser, question):
    end = time.monotonic() + 60
    while not browser.find_elements("css selector", "textarea") and time.monotonic() < end:
        time.sleep(0.3)
    field = browser.find_element("css selector", "textarea")
    field.send_keys(question + "\n")


def test_a_question_is_answered_with_triage_and_confidence(page, tmp_path):
    wait_for(page, "Information, not diagnosis")
    ask(page, "it burns when I pee and I go all the time")
    wait_for(page, "confidence")
    assert "it burns when I pee" in body(page)
    picture = tmp_path / "chat.png"
    assert page.save_screenshot(str(picture)) and picture.stat().st_size > 10_000


def test_an_emergency_comes_first_and_an_invented_disease_is_flagged(page):
    ask(page, "crushing chest pain going into my left arm and I am sweating")
    wait_for(page, "Call your emergency number now")
    ask(page, "what are the symptoms of zorbitis?")
    wait_for(page, "zorbitis")
    wait_for(page, "May be made up")
