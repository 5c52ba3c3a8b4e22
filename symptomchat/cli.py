"""The ``symptomchat`` command: ask, evaluate, trust, train, data, ship, phone."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from symptomchat.errors import SymptomChatError
from symptomchat.files import read_jsonl, write_jsonl, write_text
from symptomchat.phone.bundle import PRECISIONS


def out(text: str) -> None:
    """Print a line; a closed pipe is not an error, and odd characters are replaced where the terminal has none."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def ask(arguments: argparse.Namespace) -> None:
    """Answer one question, or a file of questions."""
    from symptomchat.runtime.assistant import check_question, load

    if (arguments.text is None) == (arguments.input is None):
        raise SymptomChatError("ask: give either a question or --input FILE; see symptomchat ask --help")
    if arguments.input is not None and arguments.output is None:
        raise SymptomChatError("ask: --input needs --output FILE; name the file for the answers")
    if arguments.text is not None:
        check_question(arguments.text)
    assistant = load(arguments.model, arguments.precision, risk=arguments.risk)
    if arguments.text is not None:
        answer = assistant.ask(arguments.text)
        if arguments.json:
            out(json.dumps(answer.to_json(), ensure_ascii=False))
            return
        if answer.flagged:
            out("⚠ LOW CONFIDENCE: MAY BE MADE UP")
        out(answer.reply)
        out("")
        for condition in answer.conditions[:5]:
            out(
                f"  {condition.probability:6.1%}  {'█' * round(condition.probability * 30):30} {condition.name}"
            )
        out(f"  confidence {answer.confidence:.0%}, triage {answer.triage}, {answer.milliseconds:.0f} ms")
        return
    questions = read_questions(arguments.input)
    answers = []
    for number, row in questions:
        try:
            answers.append(assistant.ask(row["text"], row["id"]).to_json())
        except SymptomChatError as error:
            raise SymptomChatError(f"{arguments.input}: line {number}: {error}") from error
    write_jsonl(arguments.output, answers)
    out(f"{len(answers)} answers written to {arguments.output}")


def read_questions(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Input lines ``{"id", "text"}`` with their line numbers."""
    rows = read_jsonl(path)
    for number, row in rows:
        for field in ("id", "text"):
            if field not in row:
                raise SymptomChatError(
                    f'{path}: line {number}: has no "{field}"; write {{"id": …, "text": …}} on each line'
                )
    return rows


def evaluate(arguments: argparse.Namespace) -> None:
    """Top-1, top-3, top-5 and coverage on suites, with the plain baselines beside them."""
    from rich.console import Console
    from rich.table import Table

    from symptomchat.evaluation.suites import label_finder, load_suite, score
    from symptomchat.runtime.assistant import load

    suites = {path: load_suite(path) for path in arguments.suite}
    systems: dict[str, tuple[Any, Any]] = {}
    for folder in arguments.model or [None]:
        assistant = load(folder, arguments.precision)
        find = label_finder(assistant.names)

        def rank(text: str, assistant: Any = assistant) -> list[str]:
            probabilities, _ = assistant.engine.rank(assistant.encode(text))
            return [assistant.conditions[i]["name"] for i in (-probabilities[1:]).argsort(kind="stable")[:10]]

        systems[f"{assistant.folder.name} ({assistant.precision})"] = (find, rank)
    if arguments.baselines:
        systems |= {name: (find, ranker) for name, ranker in _baselines(assistant.folder).items()}
    results = [
        (path, score(name, cases, known, ranker))
        for path, cases in suites.items()
        for name, (known, ranker) in systems.items()
    ]
    table = Table(
        title="Right condition among the first k (95 % bootstrap interval); unknown labels count as wrong"
    )
    for column in ("suite", "system", "cases", "labels known", "top-1", "top-3", "top-5"):
        table.add_column(column, justify="left" if column in ("suite", "system") else "right")
    for path, scores in results:
        table.add_row(
            path.name,
            scores.system,
            str(scores.cases),
            f"{scores.coverage:.1%}",
            *(
                f"{scores.top[k]:.1%} ({scores.interval[k][0]:.0%}–{scores.interval[k][1]:.0%})"
                for k in (1, 3, 5)
            ),
        )
    Console(width=130).print(table)
    if arguments.output is not None:
        rows = [
            {
                "suite": path.name,
                "system": s.system,
                "cases": s.cases,
                "coverage": s.coverage,
                **{f"top-{k}": v for k, v in s.top.items()},
                **{f"top-{k} interval": v for k, v in s.interval.items()},
            }
            for path, s in results
        ]
        write_text(arguments.output, json.dumps(rows, indent=1) + "\n")


def trust(arguments: argparse.Namespace) -> None:
    """Whether the confidence means what it says, and what the flags catch."""
    from rich.console import Console
    from rich.table import Table

    from symptomchat.evaluation.suites import load_suite
    from symptomchat.evaluation.trust import load_unknown
    from symptomchat.evaluation.trust import trust as measure
    from symptomchat.runtime.assistant import load

    suites = {path.name: load_suite(path) for path in arguments.suite}
    assistant = load(arguments.model, arguments.precision, risk=arguments.risk)
    unknown = load_unknown(arguments.unknown, assistant) if arguments.unknown else None
    found = measure(assistant, suites, unknown, arguments.sampled)
    if arguments.figures is not None:
        from symptomchat.evaluation.figures import draw

        draw(found, arguments.figures)
    console = Console(width=130)
    for title, rows in (
        ("Questions with a right answer", found["labelled"]),
        ("Telling answerable from unanswerable (AUROC)", [found["answerable"]]),
        ("Questions that must not be answered", found["unanswerable"]),
        ("Urgency, against the knowledge base", [found["triage"]]),
        ("Red flags", [found["red flags"]]),
        ("Minimal pairs: denied, past, somebody else's", found["pairs"]["conditions"]),
        ("The same for red flags", found["pairs"]["red flags"]),
        ("Emergencies in words that no rule was written from", found["pairs"]["fresh emergencies"]),
        (
            "Emergencies written without sight of rules and training texts",
            found["pairs"]["blind emergencies"],
        ),
        ("Right from wrong (AUROC)", found["uncertainty"]),
        ("Generated claims", found["claims"]),
        ("Words marked as important", [found["explanations"]]),
        *([("Conditions that the bundle does not know", [found["held out"]])] if found["held out"] else []),
    ):
        table = Table(title=title)
        # One line for each figure: there are more figures than columns fit.
        names = list(dict.fromkeys(name for row in rows for name in row if name != "kind"))
        table.add_column("")
        for row in rows:
            table.add_column(str(row.get("kind", "")), justify="right")
        for name in names:
            cells = [row.get(name, "") for row in rows]
            table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in cells))
        console.print(table)
    if arguments.output is not None:
        write_text(arguments.output, json.dumps(found, indent=1) + "\n")


def _baselines(folder: Path) -> dict[str, Any]:
    """The baselines, trained on the exchanges of the run that made the bundle."""
    from symptomchat.corpus.schema import Exchange
    from symptomchat.evaluation.baselines import frozen, tfidf

    path = folder / "work" / "exchanges.jsonl"
    if not path.is_file():
        raise SymptomChatError(
            f"{path}: is missing; the baselines need the exchanges of a run made here with python train.py"
        )
    exchanges = []
    for _, row in read_jsonl(path):
        if row.pop("part") == "training":
            exchanges.append(Exchange(**{**row, "symptoms": (), "treatments": ()}))
    return {
        "TF-IDF + logistic regression": tfidf(exchanges),
        "frozen MiniLM + logistic regression": frozen(exchanges),
    }


def train(arguments: argparse.Namespace) -> None:
    """Run a recipe."""
    from symptomchat.corpus.sources import parse_columns
    from symptomchat.files import MODELS, ROOT
    from symptomchat.recipe import load_recipe

    overrides = list(arguments.set)
    if arguments.hub is not None:
        overrides.append(f"data.hub={json.dumps(arguments.hub)}")
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    if arguments.references is not None:
        overrides.append(f"data.references={json.dumps(arguments.references)}")
    if arguments.teacher is not None:
        overrides.append(f"teacher_init={json.dumps(arguments.teacher)}")
    recipe = load_recipe(arguments.recipe, overrides)
    columns = parse_columns(arguments.columns)
    for path in arguments.data:
        if not path.is_file():
            raise SymptomChatError(f"{path}: is not a file; check the path given to --data")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if recipe.teacher_init != "base":
        from symptomchat.models.teachers import foreign_card

        # A teacher that cannot be used is named before the corpus is made.
        foreign_card(recipe)
    from symptomchat.pipeline import Options, execute

    output = arguments.output or MODELS / recipe.name
    report = arguments.report or ROOT / "report"
    execute(
        recipe, Options(output, report, arguments.offline, tuple(arguments.data), columns, arguments.init)
    )


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train.py`` and ``symptomchat train``."""
    parser.add_argument(
        "--recipe", default="laptop", help="talk, tiny, laptop (default), full, or a .toml file"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the recipe, e.g. student.layers=4",
    )
    parser.add_argument("--offline", action="store_true", help="do not ask the Hub")
    parser.add_argument(
        "--hub",
        metavar="ID",
        help="Hugging Face dataset id (default QuyenAnhDE/Diseases_Symptoms; '' for none)",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="CSV, JSONL or Parquet of your own; may be repeated",
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="name=…,symptoms=…",
        help="column names of the Hub set, or of --data where given",
    )
    parser.add_argument(
        "--references",
        metavar="FILE|ID",
        help="reference texts to learn from too: MedQuAD as JSON lines, or its id on the Hub (e.g. lavita/MedQuAD)",
    )
    parser.add_argument(
        "--teacher",
        metavar="INIT",
        help="teacher: base, or any causal language model or encoder of keras-hub: hf://owner/name, a folder, or a "
        "preset; --set adapting.how=lora trains more of it than a head",
    )
    parser.add_argument(
        "--init",
        default="",
        metavar="PRESET",
        help="pretrained start of the talk recipe, e.g. hf://distilbert/distilgpt2",
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--output", type=Path, help="folder of the bundle (default models/<recipe>)")
    parser.add_argument("--report", type=Path, help="folder of the report (default report)")


def ship(arguments: argparse.Namespace) -> None:
    """Copy what a device needs of a bundle, into a folder or one ``.zip``."""
    from symptomchat.phone.bundle import ship as copy_bundle
    from symptomchat.phone.bundle import zipped

    archive = arguments.output.suffix == ".zip"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / arguments.output.stem if archive else arguments.output
        manifest = copy_bundle(arguments.bundle, target)
        if arguments.current_data:
            from symptomchat.pipeline import refresh_knowledge

            manifest = refresh_knowledge(target)
        total = sum((target / name).stat().st_size for name in manifest["files"])
        told = f"{len(manifest['files'])} files, {total / 2**20:.2f} MiB"
        if archive:
            zipped(target, arguments.output)
            told += f", packed {arguments.output.stat().st_size / 2**20:.2f} MiB"
    out(f"{arguments.output}: {told}")


def statistics(arguments: argparse.Namespace) -> None:
    """What the generator makes of the built-in dataset."""
    from symptomchat.corpus.narratives import main as show

    show()


def phone(arguments: argparse.Namespace) -> None:
    """Build the phone app and serve it."""
    from symptomchat.phone.web import command

    command(arguments)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="symptomchat", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("ask", help="answer a question, or a file of questions, from a model bundle")
    one.add_argument("text", nargs="?")
    one.add_argument("--input", type=Path, metavar="FILE", help='JSON lines {"id", "text"}')
    one.add_argument("--output", type=Path, metavar="FILE", help="answers as JSON lines, in the same order")
    one.add_argument("--json", action="store_true", help="print the answer as JSON")
    one.set_defaults(run=ask)
    one.add_argument(
        "--risk", type=float, help="share of wrong answers accepted among those not flagged (default 0.1)"
    )
    two = commands.add_parser("evaluate", help="measure a bundle on labelled suites")
    two.add_argument(
        "--suite",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="CSV or JSONL; may be repeated",
    )
    two.add_argument(
        "--baselines",
        action="store_true",
        help="train the two plain baselines on the same exchanges and show them beside",
    )
    two.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    two.set_defaults(run=evaluate)
    for sub in (one, two):
        sub.add_argument(
            "--model",
            type=Path,
            metavar="FOLDER",
            action="append" if sub is two else "store",
            help="bundle, a folder or .zip (default: the shipped one, else the newest under models/)"
            + ("; may be repeated" if sub is two else ""),
        )
        sub.add_argument(
            "--precision", choices=PRECISIONS, help="default: the one the bundle was calibrated for"
        )
    six = commands.add_parser("trust", help="measure confidence, flags, urgency and red flags of a bundle")
    six.add_argument(
        "--suite", type=Path, action="append", default=[], metavar="FILE", help="may be repeated"
    )
    six.add_argument("--model", type=Path, metavar="FOLDER", help="bundle")
    six.add_argument("--precision", choices=PRECISIONS, help="default: the one the bundle was calibrated for")
    six.add_argument("--risk", type=float, help="share of wrong answers accepted among those not flagged")
    six.add_argument(
        "--unknown",
        type=Path,
        metavar="FILE",
        help="JSON lines with text and label, of conditions that the bundle does not know",
    )
    six.add_argument(
        "--sampled",
        type=int,
        default=60,
        metavar="N",
        help="questions with ten sampled answers, for semantic entropy; 0 = none (default 60, some minutes)",
    )
    six.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="draw reliability and risk against coverage"
    )
    six.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    six.set_defaults(run=trust)
    three = commands.add_parser("train", help="run a recipe (the same as python train.py)")
    add_train_arguments(three)
    three.set_defaults(run=train)
    four = commands.add_parser("data", help="statistics of what the generator makes of the built-in dataset")
    four.set_defaults(run=statistics)
    five = commands.add_parser("ship", help="copy what a device needs of a bundle")
    five.add_argument("bundle", type=Path, help="folder of a finished run, such as models/full")
    five.add_argument("--output", type=Path, required=True, metavar="FOLDER|FILE.zip")
    five.add_argument(
        "--current-data",
        action="store_true",
        help="records and red flags as data/ has them now, for the same conditions",
    )
    five.set_defaults(run=ship)
    from symptomchat.phone.web import add_arguments as add_phone_arguments

    seven = commands.add_parser(
        "phone", help="build the phone app (a web page that works offline) and serve it"
    )
    add_phone_arguments(seven)
    seven.set_defaults(run=phone)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run a parsed command; bad input is one line on stderr and exit code 2."""
    try:
        arguments.run(arguments)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n".encode("utf-8", "replace").decode("utf-8"))
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "symptomchat":
            raise
        sys.stderr.write(f'error: package {error.name} is not installed; run pip install -e ".[all]"\n')
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``symptomchat`` command."""
    return run(build_parser().parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
