"""The tokenizer of the pretrained start, its vocabulary trimmed to the domain.

In: a Hugging Face ``tokenizer.json`` (WordPiece) and texts of the corpus. Out: a smaller tokenizer that cuts
the corpus into the same pieces, with the tokens of the exchange grammar appended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer

from symptomchat.errors import SymptomChatError

USER, ANSWER, PAD, UNKNOWN = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
END, ITEM, TREATMENTS = "[end]", "[;]", "[treatments]"
INTENTS = ("diagnose", "symptoms", "treatment", "none")
NONE = "<c:none>"


def intent_token(intent: str) -> str:
    """Token that says what the question asks for."""
    return f"<ask:{intent}>"


def condition_token(identifier: str) -> str:
    """Token of a condition."""
    return f"<c:{identifier}>"


def used_pieces(tokenizer: Tokenizer, texts: Iterable[str], least: int = 1) -> set[str]:
    """Every piece that occurs at least so often when the texts are cut."""
    used: Counter[str] = Counter()
    batch: list[str] = []

    def flush() -> None:
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            used.update(encoding.tokens)
        batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == 4096:
            flush()
    flush()
    return {piece for piece, count in used.items() if count >= least}


def trim(
    tokenizer: Tokenizer, keep: set[str], condition_ids: Sequence[str], common: int = 0
) -> tuple[Tokenizer, list[int]]:
    """Keep some pieces of a WordPiece vocabulary and append the grammar's tokens.

    Besides ``keep`` the specials, all single characters (so that any word of known characters can be spelt)
    and the ``common`` first pieces of the vocabulary stay. A text whose pieces are all kept is cut as before.

    Args:
        condition_ids: identifiers, in the order of the ranking.

    Returns:
        the trimmed tokenizer, and for each of its ids below the first appended token the id in the original.

    Raises:
        SymptomChatError: the tokenizer is not WordPiece.
    """
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    if spec["model"]["type"] != "WordPiece":
        raise SymptomChatError(
            f"tokenizer: is {spec['model']['type']}, not WordPiece; use a teacher of the BERT family"
        )
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    specials = {PAD, UNKNOWN, USER, ANSWER, "[MASK]"}
    old_ids: list[int] = []
    kept: dict[str, int] = {}
    for piece, old in sorted(vocabulary.items(), key=lambda item: item[1]):
        single = len(piece.removeprefix("##")) == 1
        if (
            piece in specials
            or piece in keep
            or single
            or (common and old < common and not piece.startswith("[unused"))
        ):
            kept[piece] = len(old_ids)
            old_ids.append(old)
    added = [END, ITEM, TREATMENTS, *map(intent_token, INTENTS), NONE, *map(condition_token, condition_ids)]
    spec["model"]["vocab"] = kept
    spec["added_tokens"] = [
        dict(row, id=kept[row["content"]]) for row in spec["added_tokens"] if row["content"] in kept
    ]
    spec["post_processor"] = None
    spec["truncation"] = spec["padding"] = None
    trimmed = Tokenizer.from_str(json.dumps(spec))
    start = len(kept)
    from tokenizers import AddedToken

    trimmed.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in added])
    if trimmed.token_to_id(added[0]) != start:
        raise SymptomChatError(
            "tokenizer: the grammar's tokens collide with its vocabulary; use another start"
        )
    return trimmed, old_ids
