"""What each ingredient of the data is worth: ``python benchmarks/ingredients.py --suite FILE [--suite FILE]``.

Fine-tunes the pretrained start of a recipe on the generator's text, once with everything and once without each
ingredient, all for the same number of steps, and ranks the suites with it. Prints a table and writes
``docs/results/ingredients.json``. A variant that was measured before with the same key is not run again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.suites import load_suite, score
from symptomchat.files import fingerprint, read_json, write_json
from symptomchat.pipeline import (
    Options,
    Run,
    corpus_stage,
    inputs_key,
    load_model,
    teacher_stage,
    vocabulary_stage,
)
from symptomchat.recipe import load_recipe

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "ingredients.json"
INGREDIENTS = ("phrasings", "presentations", "negation", "demographics", "confusables", "asides")


def measure(overrides: list[str], recipe_name: str, suites: dict[Path, list[Any]]) -> dict[str, Any]:
    """Train one variant in a temporary folder and rank the suites with it."""
    from symptomchat.evaluation.baselines import rank_questions

    recipe = load_recipe(recipe_name, overrides)
    with tempfile.TemporaryDirectory() as folder:
        options = Options(Path(folder) / "bundle", Path(folder) / "report", offline=True)
        run = Run(recipe, options, inputs_key(recipe, options))
        run.work.mkdir(parents=True)
        for stage in (corpus_stage, vocabulary_stage, teacher_stage):
            stage(run)
        rank = rank_questions(load_model(run, "teacher"), run.grammar, run.corpus.knowledge)
        rows: dict[str, Any] = {"exchanges": len(run.corpus.training)}
        for path, cases in suites.items():
            result = score("", cases, run.corpus.knowledge.find, rank)
            rows[path.name] = {f"top-{k}": round(value, 4) for k, value in result.top.items()}
    return rows


def main() -> int:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=Path, action="append", required=True)
    parser.add_argument("--recipe", default="laptop")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of each variant")
    arguments = parser.parse_args()
    try:
        suites = {path: load_suite(path) for path in arguments.suite}
        base = [
            f"teaching.steps_per_epoch={arguments.steps}",
            "teaching.epochs=1",
            "data.questions_per_condition=1",
            "data.spoken=0.0",
        ]
        variants = {"everything": base} | {f"without {n}": [*base, f"data.{n}=false"] for n in INGREDIENTS}
        results = read_json(RESULTS) if RESULTS.is_file() else {}
        for name, overrides in variants.items():
            recipe = load_recipe(arguments.recipe, overrides)
            key = fingerprint(
                [
                    inputs_key(recipe, Options(Path("a"), Path("b"), offline=True)),
                    sorted(p.name for p in suites),
                ]
            )
            if results.get(name, {}).get("key") != key:
                row = measure(overrides, arguments.recipe, suites)
                results[name] = {"key": key, "steps": arguments.steps, **row}
                write_json(RESULTS, results)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    table = Table(title=f"{arguments.recipe}: {arguments.steps} steps of fine-tuning, top-1 / top-3 / top-5")
    table.add_column("variant")
    for path in suites:
        table.add_column(path.name, justify="right")
    for name in variants:
        cells = [" / ".join(f"{v:.1%}" for v in results[name][path.name].values()) for path in suites]
        table.add_row(name, *cells)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
