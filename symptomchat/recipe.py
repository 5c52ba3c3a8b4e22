"""A recipe: everything that decides what a run makes, as one frozen, typed object.

``load_recipe("laptop", ["student.layers=4"])`` reads ``recipes/laptop.toml`` (or any TOML file), applies
the overrides and validates names, types and ranges; the result goes unchanged into the run's manifest.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from symptomchat.errors import SymptomChatError
from symptomchat.files import read_text

RECIPES = Path(__file__).with_name("recipes")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataPart(_Part):
    """Where the records come from and how many exchanges are made of them."""

    hub: str = "QuyenAnhDE/Diseases_Symptoms"
    builtin: bool = True
    references: str = Field("", description="MedQuAD as a file or a Hub id; empty for none")
    conditions: int = Field(0, ge=0, description="keep only this many conditions; 0 keeps all")
    withheld_conditions: int = Field(
        0,
        ge=0,
        description="leave so many conditions out altogether, in whole ICD-10 categories, by the seed",
    )
    withheld: tuple[str, ...] = Field(
        (), description="identifiers of conditions to leave out, or a file with one on each line"
    )
    narratives_per_condition: int = Field(12, ge=0)
    questions_per_condition: int = Field(4, ge=0)
    repeats_of_presentations: int = Field(2, ge=1)
    unanswerable_share: float = Field(0.08, ge=0, lt=1)
    spoken: float = Field(0.2, ge=0, le=1, description="share of the diagnoses trained with whole answers")
    train_share: float = Field(0.8, gt=0, lt=1)
    phrasings: bool = True
    presentations: bool = True
    negation: bool = True
    demographics: bool = True
    confusables: bool = True
    asides: bool = Field(True, description="tell findings that are over, or somebody else's, as such")

    @field_validator("withheld", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        # The identifiers and not the file's name go into the manifest, so that a bundle tells what it lacks.
        if not isinstance(value, str):
            return value
        lines = [line.split("#")[0].strip() for line in read_text(Path(value)).splitlines()]
        return tuple(line for line in lines if line)


class ModelPart(_Part):
    """Shape of a prefix language model; 0 keeps the pretrained start's own number."""

    layers: int = Field(0, ge=0, le=48)
    heads: int = Field(0, ge=0, le=64)
    neurons: int = Field(0, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    question_tokens: int = Field(192, ge=16, le=448)
    answer_tokens: int = Field(64, ge=8, le=256)
    common_pieces: int = Field(4000, ge=0, description="commonest pieces of the start's vocabulary that stay")
    least_uses: int = Field(4, ge=1, description="pieces that the corpus uses less often are spelt by others")


class TrainingPart(_Part):
    """One training loop."""

    epochs: int = Field(1, ge=0)
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    head_rate: float = Field(1.0, gt=0, description="learning rate of the ranking's head, as a multiple")
    weight_decay: float = Field(0.01, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    patience: int = Field(2, ge=1)
    condition_weight: float = Field(2.0, ge=0)
    steps_per_epoch: int = Field(0, ge=0, description="0: the whole training part each epoch")
    unlabelled: float = Field(
        0.0,
        ge=0,
        le=2,
        description="questions without labels beside each batch, as a share of it, of which a live teacher says the conditions",
    )


class AdaptingPart(TrainingPart):
    """How a teacher with a vocabulary of its own (``--teacher``) learns the conditions."""

    epochs: int = Field(3, ge=0)
    batch: int = Field(16, ge=1)
    targets: Literal["auto", "conditions", "tokens"] = Field(
        "auto",
        description="what it teaches: auto is tokens too for the BERT family, conditions for all others",
    )
    how: Literal["head", "lora", "full"] = Field(
        "head",
        description="what is trained: a linear head over frozen states, adapters below it, or everything",
    )
    rank: int = Field(8, ge=1, le=256, description="of the adapters")
    tokens: int = Field(128, ge=8, le=1024, description="longer questions are cut")
    texts: int = Field(0, ge=0, description="training questions that it reads; 0 reads all")
    only_if_better: bool = Field(
        True, description="teach only if it ranks unseen questions better than the frozen start does"
    )


class DistillationPart(_Part):
    """From teacher to student."""

    temperature: float = Field(2.0, gt=0)
    weight: float = Field(0.5, ge=0, le=1)


class PruningPart(_Part):
    """Magnitude pruning by the model-optimization schedules."""

    sparsity: float = Field(0.3, ge=0, lt=1)
    begin: float = Field(0.1, ge=0, le=1)
    end: float = Field(0.6, ge=0, le=1)


class TalkPart(_Part):
    """The demo of the talk: a GPT-2 style causal language model."""

    layers: int = Field(6, ge=1)
    heads: int = Field(12, ge=1)
    hidden: int = Field(768, ge=8)
    tokens: int = Field(64, ge=16)
    init: str = ""


class Recipe(_Part):
    """A whole run."""

    name: str
    kind: Literal["prefix", "talk"] = "prefix"
    seed: int = 7
    teacher_init: str = "base"
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    data: DataPart = DataPart()
    teacher: ModelPart = ModelPart()
    student: ModelPart = ModelPart()
    teaching: TrainingPart = TrainingPart()
    distilling: TrainingPart = TrainingPart()
    pruning_loop: TrainingPart = TrainingPart()
    adapting: AdaptingPart = AdaptingPart()
    distillation: DistillationPart = DistillationPart()
    pruning: PruningPart = PruningPart()
    talk: TalkPart = TalkPart()
    stored_targets: bool = Field(
        False, description="learn from the soft targets in models/targets, where they know the exchanges"
    )
    prior_shift: float = Field(
        0.0, ge=0, le=2, description="added to a condition's logit for each step of how common it is"
    )
    ships: Literal["int8", "int4"] = Field("int4", description="precision that is calibrated and ships")
    risk: float = Field(0.1, gt=0, lt=1)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def load_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by name or path and apply ``section.key=value`` overrides.

    Raises:
        SymptomChatError: unknown recipe, unknown key, wrong type or value out of range.
    """
    path = RECIPES / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
        if path.suffix != ".toml" or not path.is_file():
            known = ", ".join(recipe_names())
            raise SymptomChatError(
                f"recipe '{name}': is unknown; use one of {known}, or the path of a .toml file"
            )
    try:
        values = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SymptomChatError(f"{path}: is not valid TOML ({error}); mend the file") from error
    values.setdefault("name", path.stem)
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise SymptomChatError(f"--set {override}: is not key=value; write for example student.layers=4")
        target = values
        *sections, last = key.strip().split(".")
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise SymptomChatError(f"--set {override}: '{section}' is not a section of a recipe")
        target[last] = _parse_value(text.strip())
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SymptomChatError(
            f"recipe '{name}': {where}: {first['msg'].lower()}; see symptomchat/recipe.py for the keys"
        ) from error
