"""The model card of a bundle, written by the run that made it.

In: the bundle's manifest and calibration. Out: Markdown for ``README.md`` in the bundle's folder. No figure is
typed by hand.
"""

from __future__ import annotations

from typing import Any


def card(manifest: dict[str, Any], confidence: dict[str, Any], sizes: dict[str, int]) -> str:
    """The card.

    Args:
        manifest: values of ``manifest.json``.
        confidence: content of ``confidence.json``.
        sizes: bytes of each file.
    """
    fitted = confidence["fitted_on"]
    recipe, exchanges = manifest["recipe"], manifest["exchanges"]
    rows = "\n".join(
        f"| {row['stage']} | {row['parameters'] / 1e6:.2f} | {row['bytes'] / 2**20:.2f} | "
        f"{row['validation loss']:.3f} | {row['accuracy']:.1%} | {row['ms per token']:.2f} |"
        for row in manifest["table"]
    )
    files = "\n".join(f"| `{file}` | {size / 2**20:.2f} |" for file, size in sorted(sizes.items()))
    sources = "\n".join(
        f"- {source['name']}, fingerprint `{source['fingerprint']}`" for source in manifest["sources"]
    )
    parity = "; ".join(
        f"{kind}: probabilities within {values['probabilities']:.2g}, {values['same_first']:.1%} the same first "
        f"condition, {values['same_tokens']:.1%} the same tokens"
        for kind, values in manifest["parity"].items()
    )
    return f"""---
license: apache-2.0
language: en
library_name: litert
tags: [symptom-checker, small-language-model, prefix-lm, tflite]
---

# SymptomChat, recipe {recipe["name"]}

A small prefix language model that ranks {manifest["conditions"]} conditions for a text in a patient's or a clinician's
words, and lists symptoms and treatments. **Information, not diagnosis.** It has not been reviewed by physicians and is
no medical device; whoever feels seriously ill must not wait for its answer.

## How it was made

`python train.py --recipe {recipe["name"]}` at commit `{manifest.get("commit") or "unknown"}`, seed {manifest["seed"]}, from
{exchanges["training"]:,} exchanges ({exchanges["validation"]:,} for early stopping, {exchanges["calibration"]:,} for calibration; no authored
text on two sides). Sources:

{sources}

The start is all-MiniLM-L6-v2 (Apache-2.0) with its vocabulary trimmed.

## What each stage gives

On unseen groups of the project's own text (milliseconds on one thread of the machine that made it):

| stage | parameters (M) | MiB | validation loss | accuracy | ms per token |
|---|---:|---:|---:|---:|---:|
{rows}

Against Keras on real prompts: {parity}.

## How sure it is

Fitted on {fitted["exchanges"]:,} exchanges that no other step saw, of which {fitted["right"]:.1%} are answered rightly: an answer whose
confidence is below {confidence["threshold"]:.3f} is flagged. {fitted["coverage"]:.1%} of them are not flagged, and {fitted["wrong among those not flagged"]:.1%} of those are wrong. This
holds for text like the project's own; on strangers' words expect more mistakes.

## Files

| file | MiB |
|---|---:|
{files}

## Limits

English only. Conditions outside its list are not known to it. Rare conditions are told by few texts. It does not
weigh age, sex or medicines as a clinician does, and must never be used to decide against care.
"""
