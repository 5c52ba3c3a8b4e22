"""Whether a phone's processor gives the same answers: ``python benchmarks/arm64.py [--model FOLDER]``.

Asks the fifty reference questions twice, once on this machine and once on an arm64 Python with the arm64 build of
LiteRT, and compares them: the first three conditions, the flag, the red flags, the claims and the confidence. On a
machine of another kind the arm64 Python runs under qemu; its files (Debian's Python and the wheels of the versions
that are installed here) are fetched once into ``dist/arm64``. On an arm64 machine its own Python is asked, and
``--reference FILE`` gives what another machine answered (``python -m symptomchat.phone.reference``). Prints the
comparison and writes ``docs/results/arm64.json``; leaves with exit code 1 where an answer differs by more than
``--tolerance``. Emulated seconds say nothing about a phone's speed, so no time is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from symptomchat.errors import SymptomChatError  # noqa: E402
from symptomchat.files import ROOT, read_json, sha256, write_json, write_text  # noqa: E402
from symptomchat.phone import reference  # noqa: E402
from symptomchat.phone.bundle import model_file  # noqa: E402
from symptomchat.runtime.assistant import Assistant, default_model, load  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "arm64.json"
FOLDER = ROOT / "dist" / "arm64"
NATIVE = ("aarch64", "arm64")
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
RELEASE = "bookworm"
"""Debian release of the arm64 Python: its 3.11 is the oldest that the project supports."""
PYTHON = "3.11"
DEBIAN = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "libgcc-s1", "zlib1g")
WHEELS = ("ai-edge-litert", "numpy", "tokenizers", "flatbuffers", "protobuf", "typing-extensions")
"""What the runtime imports; the wheels' other requirements serve what it does not use."""
TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
CPU = "cortex-a76"
"""A phone's large core since 2019: it has the dot product instructions that int8 kernels use."""
CORE = """processor\t: {number}
BogoMIPS\t: 52.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""
"""One core of ``/proc/cpuinfo`` on a Cortex-A76."""


# --- the arm64 Python --------------------------------------------------------------------------------------


def tool(*names: str, package: str) -> str:
    """Path of the first of some programs that is installed.

    Raises:
        SymptomChatError: none is.
    """
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise SymptomChatError(
        f"{names[0]}: is not installed, and without it no arm64 program runs here; run apt-get install {package}"
    )


def prepare(folder: Path) -> Path:
    """The root of the arm64 files, fetched where it is not there yet or holds other versions.

    Raises:
        SymptomChatError: a tool is missing, or Debian's or Python's packages cannot be reached.
    """
    root, stamp = folder / "root", folder / "versions.json"
    wanted = {"release": RELEASE, **{name: _installed(name) for name in WHEELS}}
    if stamp.is_file() and read_json(stamp) == wanted:
        return root
    bootstrap = tool("mmdebstrap", package="mmdebstrap")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Extracting runs no arm64 program, so neither binfmt_misc nor a chroot is needed.
    _run(
        [
            bootstrap,
            "--variant=extract",
            "--architectures=arm64",
            f"--include={','.join(DEBIAN)}",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            RELEASE,
            str(root),
        ],
        "an arm64 Python could not be fetched from Debian's packages",
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += ["--python-version", PYTHON, "--implementation", "cp", "--target", str(root / "site")]
    pip += [argument for tag in TAGS for argument in ("--platform", tag)]
    _run([*pip, *(f"{name}=={wanted[name]}" for name in WHEELS)], "the arm64 wheels could not be fetched")
    # LiteRT reads the kind of processor there. Older qemu shows the file of the machine below, on which the arm64
    # library crashes; what lies under the root is shown first.
    cores = os.cpu_count() or 1
    write_text(root / "proc" / "cpuinfo", "\n".join(CORE.format(number=at) for at in range(cores)) + "\n")
    write_json(stamp, wanted)
    return root


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError as error:
        raise SymptomChatError(
            f'{name}: is not installed, so its arm64 version is unknown; run pip install -e ".[all]"'
        ) from error


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SymptomChatError(f"{failure} ({last}); check the network and run the same command again")


def emulated(root: Path, model: Path, texts: Sequence[str], cpu: str = CPU) -> list[dict[str, Any]]:
    """What the arm64 Python answers under qemu, entries as in ``reference.json``.

    Raises:
        SymptomChatError: qemu is missing, or the arm64 program fails.
    """
    qemu = tool(*EMULATORS, package="qemu-user-static")
    with tempfile.TemporaryDirectory() as temporary:
        questions, answers = Path(temporary, "questions.json"), Path(temporary, "answers.json")
        write_json(questions, list(texts))
        command = [qemu, "-cpu", cpu, "-L", str(root), str(root / "usr" / "bin" / f"python{PYTHON}")]
        command += ["-s", "-S", str(Path(__file__).resolve()), "--model", str(model.resolve())]
        command += ["--ask", str(questions), "--output", str(answers)]
        environment = {"PYTHONPATH": str(root / "site"), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "", **environment})
        if done.returncode or not answers.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise SymptomChatError(
                f"{root}: its arm64 Python did not answer ({last}); delete {root.parent} and run this again"
            )
        entries: list[dict[str, Any]] = read_json(answers)
        return entries


# --- the comparison ----------------------------------------------------------------------------------------


def compare(
    here: Sequence[dict[str, Any]], there: Sequence[dict[str, Any]], tolerance: float
) -> dict[str, Any]:
    """How far two lists of entries agree.

    Args:
        here, there: entries of ``reference.json`` for the same questions in the same order.
        tolerance: largest difference of confidence that is no difference.

    Returns:
        ``questions``; how many have the same ``token ids``, ``first condition``, ``first three``, ``flag``,
        ``red flags``, ``claims``; the largest and mean difference of confidence, how many are above the
        tolerance; the largest difference of a probability of the same condition; and ``different``, the texts
        that differ in the first three, the flag, the red flags or by more than the tolerance.

    Raises:
        SymptomChatError: the questions are not the same.
    """
    if [entry["text"] for entry in here] != [entry["text"] for entry in there] or not here:
        raise SymptomChatError(
            "reference: holds other questions; write it again with python -m symptomchat.phone.reference"
        )
    pairs = list(zip(here, there))
    moved = [abs(a["confidence"] - b["confidence"]) for a, b in pairs]
    shifted = [
        abs(one["probability"] - other["probability"])
        for a, b in pairs
        for one in a["conditions"]
        for other in b["conditions"]
        if one["name"] == other["name"]
    ]
    wrong = [
        a["text"]
        for (a, b), difference in zip(pairs, moved)
        if names(a) != names(b)
        or a["flagged"] != b["flagged"]
        or list(a["red_flags"]) != list(b["red_flags"])
        or difference > tolerance
    ]
    return {
        "questions": len(pairs),
        "token ids": sum(list(a["ids"]) == list(b["ids"]) for a, b in pairs),
        "first condition": sum(names(a)[:1] == names(b)[:1] for a, b in pairs),
        "first three": sum(names(a) == names(b) for a, b in pairs),
        "flag": sum(a["flagged"] == b["flagged"] for a, b in pairs),
        "red flags": sum(list(a["red_flags"]) == list(b["red_flags"]) for a, b in pairs),
        "claims": sum(claims(a) == claims(b) for a, b in pairs),
        "largest difference of confidence": round(max(moved), 4),
        "mean difference of confidence": round(sum(moved) / len(moved), 5),
        "above the tolerance": sum(difference > tolerance for difference in moved),
        "largest difference of a probability": round(max(shifted, default=0.0), 4),
        "different": wrong,
    }


def names(entry: dict[str, Any]) -> list[str]:
    """Names of the first three conditions."""
    return [condition["name"] for condition in entry["conditions"]]


def claims(entry: dict[str, Any]) -> list[str]:
    """Texts of the symptoms and treatments."""
    return [claim["text"] for claim in (*entry["symptoms"], *entry["treatments"])]


# --- the command -------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value as it is read back from JSON, where tuples are lists."""
    return json.loads(json.dumps(value))


def answered(assistant: Assistant, texts: Sequence[str]) -> list[dict[str, Any]]:
    """What this Python answers."""
    return [plain(reference.expected(assistant, text)) for text in texts]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ask both, compare, and give what is written to the results."""
    model = arguments.model or default_model()
    texts = reference.questions()[: arguments.questions]
    machine = platform.machine()
    native = machine.lower() in NATIVE
    if native and arguments.reference is None:
        raise SymptomChatError(
            f"--reference: is missing, and this machine is itself {machine}; give what another kind of machine wrote "
            "with python -m symptomchat.phone.reference"
        )
    if native:
        there = answered(load(model), texts)
        here = reference.read(arguments.reference)[: len(texts)]
        place = f"{machine}, this machine"
    else:
        tool(*EMULATORS, package="qemu-user-static")
        root = prepare(arguments.folder)
        here = answered(load(model), texts)
        there = emulated(root, model, texts, arguments.cpu)
        place = f"arm64 ({arguments.cpu}) under qemu on {machine}"
    manifest = read_json(model / "manifest.json")
    return {
        "machine": place,
        "model": sha256(model / model_file(manifest)),
        "versions": {name: _installed(name) for name in WHEELS[:3]},
        "tolerance": arguments.tolerance,
        **compare(here, there, arguments.tolerance),
    }


def show(result: dict[str, Any]) -> None:
    """Print a comparison."""
    total = result["questions"]
    print(f"{result['machine']}: {total} questions")
    for name in ("token ids", "first condition", "first three", "flag", "red flags", "claims"):
        print(f"  same {name}: {result[name]} of {total}")
    print(
        f"  confidence differs by at most {result['largest difference of confidence']} "
        f"(mean {result['mean difference of confidence']}; above {result['tolerance']}: {result['above the tolerance']})"
    )
    print(f"  a probability differs by at most {result['largest difference of a probability']}")
    for text in result["different"]:
        print(f"  different: {text}")


def command(arguments: argparse.Namespace) -> int:
    """Compare, or with ``--ask`` answer questions for the comparison of another process."""
    if arguments.ask is not None:
        write_json(arguments.output, answered(load(arguments.model), read_json(arguments.ask)))
        return 0
    result = measure(arguments)
    show(result)
    write_json(arguments.output, result)
    return 1 if result["different"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; bad input is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python benchmarks/arm64.py", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="bundle (default: the shipped one)")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the arm64 files lie (default dist/arm64)"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="on an arm64 machine: another machine's answers"
    )
    parser.add_argument("--cpu", default=CPU, help=f"processor that qemu plays (default {CPU})")
    parser.add_argument("--tolerance", type=float, default=0.01, help="of the confidence (default 0.01)")
    parser.add_argument("--questions", type=int, default=reference.COUNT, help="how many of the fifty")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE", help="results to write")
    parser.add_argument("--ask", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not 0 < arguments.questions <= reference.COUNT:
        parser.error(f"--questions {arguments.questions}: must lie between 1 and {reference.COUNT}")
    try:
        return command(arguments)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
