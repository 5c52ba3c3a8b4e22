"""A bundle: one folder, or one ``.zip`` of it, with all that a device needs to answer.

``model.int4.tflite`` (a run leaves ``fp32`` and ``int8`` beside it), ``tokenizer.json``, ``knowledge.json``,
``confidence.json`` and ``manifest.json``, which holds the SHA-256 of each file and the precision that the
confidence was calibrated for. This module writes and verifies it and needs the standard library alone.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

from symptomchat.errors import SymptomChatError
from symptomchat.files import atomic, copy_atomically, read_bytes, read_json, sha256, write_json

FORMAT = "symptomchat-bundle/2"
READABLE = ("symptomchat-bundle/1", FORMAT)
"""Bundles of the first format hold their knowledge written out; the runtime reads both."""
REQUIRED = ("tokenizer.json", "knowledge.json", "confidence.json")
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8", "int4")
"""What a ``.tflite`` of this project may hold its weights in."""


def model_file(manifest: dict[str, Any]) -> str:
    """Name of the model file that a bundle's confidence was calibrated for."""
    return f"model.{manifest.get('precision', 'int8')}.tflite"


def write_manifest(folder: Path, values: dict[str, Any]) -> None:
    """Write ``manifest.json`` with the hash of every file of the folder."""
    files = {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }
    write_json(folder / MANIFEST, {"format": FORMAT, **values, "files": files})


def zipped(folder: Path, target: Path) -> None:
    """Write a bundle as one ``.zip``; the same files give the same bytes."""
    names = [MANIFEST, *sorted(verify(folder)["files"])]
    with atomic(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            # The least date that the format knows: when a file was copied says nothing about it.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, read_bytes(folder / name), compresslevel=9)


def unzipped(path: Path) -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """The files of a bundle's ``.zip`` in a folder that bears its name and lives as long as its owner, the second part.

    Raises:
        SymptomChatError: the file is missing, no archive, or damaged.
    """
    owner = tempfile.TemporaryDirectory(prefix="symptomchat-", ignore_cleanup_errors=True)
    folder = Path(owner.name) / path.stem
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                # A bundle is flat: whatever path an entry claims, it is written beside the others.
                name = Path(entry.filename).name
                if not entry.is_dir() and name:
                    (folder / name).write_bytes(archive.read(entry))
    except FileNotFoundError as error:
        raise SymptomChatError(f"{path}: does not exist; check the path") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise SymptomChatError(
            f"{path}: is no readable archive of a bundle ({error}); copy it again, or make it with symptomchat ship"
        ) from error
    return folder, owner


def ship(source: Path, target: Path) -> dict[str, Any]:
    """Copy of a bundle with the one model file that it was calibrated for, verified before and after.

    Raises:
        SymptomChatError: the source is no sound bundle, or the target is the source.
    """
    verify(source)
    if target.resolve() == source.resolve():
        raise SymptomChatError(f"{target}: is the bundle itself; name another folder")
    target.mkdir(parents=True, exist_ok=True)
    manifest = read_json(source / MANIFEST)
    model = model_file(manifest)
    kept = {
        name: value
        for name, value in manifest["files"].items()
        if not name.endswith(".tflite") or name == model
    }
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
        or manifest.get("format") not in READABLE
        or not isinstance(manifest.get("files"), dict)
    ):
        raise SymptomChatError(
            f"{folder / MANIFEST}: is not of format {FORMAT}; use a bundle of this version"
        )
    required = (model_file(manifest), *REQUIRED)
    for name in required:
        if name not in manifest["files"]:
            raise SymptomChatError(f"{folder / MANIFEST}: does not list {name}; make the bundle again")
    for name, expected in manifest["files"].items():
        # The other precisions are for comparison; a phone's copy leaves them out.
        if not (folder / name).is_file():
            if name in required:
                raise SymptomChatError(f"{folder / name}: is missing; copy the whole bundle again")
            continue
        if sha256(folder / name) != expected:
            raise SymptomChatError(f"{folder / name}: is damaged (SHA-256 differs); copy the bundle again")
    return manifest
