"""The Hub path, against a loopback server that speaks the Hub's endpoints."""

import json

import pytest

from tests.conftest import run_command
from tests.hub import Hub

NAME = "QuyenAnhDE/Diseases_Symptoms"
GOOD = b'\xef\xbb\xbfCode,Name,Symptoms,Treatments\n1,Panic disorder,"Palpitations, Sweating","Therapy"\n2,Zorb fever,"Hot ears","Rest"\n'
SCRIPT = """
import json, sys
from symptomchat.corpus.sources import from_hub, clean, HubUnreachable
from symptomchat.errors import SymptomChatError
try:
    source = from_hub(sys.argv[1])
    print("RESULT", json.dumps([source.fingerprint, clean(source).records]))
except HubUnreachable as error:
    print("RESULT", json.dumps(["unreachable", str(error)]))
except SymptomChatError as error:
    print("RESULT", json.dumps(["error", str(error)]))
"""


@pytest.fixture
def ask(tmp_path):
    hubs = []

    def run(sets, name=NAME, cut=()):
        hub = Hub(sets, cut)
        hubs.append(hub)
        env = {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / f"cache{len(hubs)}"), "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_OFFLINE": "0",
        }  # fmt: skip
        done = run_command("-c", SCRIPT, name, timeout=120, env=env)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stdout + done.stderr
        return json.loads(lines[-1].removeprefix("RESULT ")), hub

    yield run
    for hub in hubs:
        hub.close()


def test_the_set_is_downloaded_and_cleaned(ask):
    (fingerprint, records), hub = ask({NAME: {"Diseases_Symptoms.csv": GOOD}})
    assert records == [
        ["Panic disorder", ["Palpitations", "Sweating"], ["Therapy"]],
        ["Zorb fever", ["Hot ears"], ["Rest"]],
    ]
    assert len(fingerprint) == 16 and any("resolve" in request for request in hub.requests)


def test_a_missing_set_is_said_in_one_line(ask):
    (kind, message), _ = ask({}, "nobody/nothing")
    assert kind == "unreachable" and "nobody/nothing" in message and "\n" not in message


def test_a_changed_column_is_an_error_that_names_it(ask):
    (kind, message), _ = ask({NAME: {"data.csv": GOOD.replace(b"Symptoms", b"Signs")}})
    assert kind == "error" and "'Symptoms' is missing" in message and "Signs" in message


def test_a_connection_cut_half_way_is_said_in_one_line(ask):
    (kind, message), _ = ask({NAME: {"data.csv": GOOD * 400}}, cut=("data.csv",))
    assert kind == "unreachable" and "\n" not in message
