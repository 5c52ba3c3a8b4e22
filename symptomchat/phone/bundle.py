"""A bundle: one folder with all that a device needs to answer.

``model.int8.tflite`` (and ``model.fp32.tflite``), ``tokenizer.json``, ``knowledge.json``, ``confidence.json``
and ``manifest.json``, which holds the SHA-256 of each file. This module writes and verifies it and needs the
standard library alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from symptomchat.errors import SymptomChatError
from symptomchat.files import copy_atomically, read_json, sha256, write_json

FORMAT = "symptomchat-bundle/1"
REQUIRED = ("model.int8.tflite", "tokenizer.json", "knowledge.json", "confidence.json")
MANIFEST = "manifest.json"
NOT_ON_A_PHONE = ("model.fp32.tflite",)


def write_manifest(folder: Path, values: dict[str, Any]) -> None:
    """Write ``manifest.json`` with the hash of every file of the folder."""
    files = {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }
    write_json(folder / MANIFEST, {"format": FORMAT, **values, "files": files})


def ship(source: Path, target: Path) -> dict[str, Any]:
    """Copy of a bundle without what a phone does not need (the float32 file), verified before and after.

    Raises:
        SymptomChatError: the source is no sound bundle, or the target is the source.
    """
    verify(source)
    if target.resolve() == source.resolve():
        raise SymptomChatError(f"{target}: is the bundle itself; name another folder")
    target.mkdir(parents=True, exist_ok=True)
    manifest = read_json(source / MANIFEST)
    kept = {name: value for name, value in manifest["files"].items() if name not in NOT_ON_A_PHONE}
    for name in kept:
        copy_atomically(source / name, target / name)
    write_json(target / MANIFEST, {**manifest, "files": kept})
    return verify(target)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are the ones it names.

    Raises:
        SymptomChatError: there is no bundle, it is of another format, or a file is missing or damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise SymptomChatError(
            f"{folder}: is not a model bundle (no {MANIFEST}); make one with python train.py"
        )
    manifest = read_json(folder / MANIFEST)
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not isinstance(manifest.get("files"), dict)
    ):
        raise SymptomChatError(
            f"{folder / MANIFEST}: is not of format {FORMAT}; use a bundle of this version"
        )
    for name in REQUIRED:
        if name not in manifest["files"]:
            raise SymptomChatError(f"{folder / MANIFEST}: does not list {name}; make the bundle again")
    for name, expected in manifest["files"].items():
        # The float32 file is for comparison; a phone's copy may leave it out.
        if not (folder / name).is_file():
            if name in REQUIRED:
                raise SymptomChatError(f"{folder / name}: is missing; copy the whole bundle again")
            continue
        if sha256(folder / name) != expected:
            raise SymptomChatError(f"{folder / name}: is damaged (SHA-256 differs); copy the bundle again")
    return manifest
