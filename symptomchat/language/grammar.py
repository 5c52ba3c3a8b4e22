"""One exchange ⇄ token ids.

    [CLS] question [SEP] <c:panic-disorder> <ask:diagnose> palpitations [;] sweating [treatments] … [end]

``[CLS]`` and ``[SEP]`` are the pretrained start's own marks of begin and end; here they open the user's part
and the answer. The condition is one token, the intent is one token, the rest is ordinary generated text.
This module needs ``tokenizers`` alone, so that training, phone and browser share one grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from symptomchat.language.tokenizer import (
    ANSWER,
    END,
    INTENTS,
    ITEM,
    NONE,
    TREATMENTS,
    UNKNOWN,
    USER,
    intent_token,
)


@dataclass(frozen=True)
class Decoded:
    """An answer read back from its tokens."""

    intent: str
    symptoms: tuple[str, ...]
    treatments: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """First and last position (exclusive) of each item, symptoms first, in the token list."""


def _plain(text: str) -> str:
    """A text in which marks of the grammar are no tokens."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    # A space after each opening bracket keeps typed marks such as "[SEP]" or "<c:gout>" from being read as tokens.
    return text.replace("[", "[ ").replace("<c:", "< c:").replace("<ask:", "< ask:")


class Grammar:
    """Encodes questions and answers with one tokenizer.

    Args:
        tokenizer: trimmed tokenizer whose last tokens are the grammar's.
        question_tokens, answer_tokens: the longest question and answer, marks included.
    """

    def __init__(self, tokenizer: Tokenizer, question_tokens: int, answer_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.question_tokens = question_tokens
        self.answer_tokens = answer_tokens
        self.user = self._id(USER)
        self.answer = self._id(ANSWER)
        self.unknown = self._id(UNKNOWN)
        self.end = self._id(END)
        self.item = self._id(ITEM)
        self.treatments = self._id(TREATMENTS)
        self.none = self._id(NONE)
        self.intents = [self._id(intent_token(intent)) for intent in INTENTS]
        self.size = tokenizer.get_vocab_size()
        self.conditions = self.size - self.none
        """Number of condition tokens, ``<c:none>`` (the first) included; they are the last ids."""

    def _id(self, token: str) -> int:
        identifier = self.tokenizer.token_to_id(token)
        if identifier is None:
            raise ValueError(f"tokenizer: token {token} is missing")
        return int(identifier)

    def pieces(self, text: str) -> list[int]:
        """Ids of a text; marks of the grammar typed by a user are plain text, never tokens."""
        return list(self.tokenizer.encode(_plain(text), add_special_tokens=False).ids)

    def pieces_of(self, texts: Sequence[str]) -> list[list[int]]:
        """``pieces`` of many texts at once: each word is cut once, since no piece reaches over a blank."""
        words = list(dict.fromkeys(word for text in texts for word in text.split(" ")))
        encodings = self.tokenizer.encode_batch([_plain(word) for word in words], add_special_tokens=False)
        ids = {word: encoding.ids for word, encoding in zip(words, encodings, strict=True)}
        return [[i for word in text.split(" ") for i in ids[word]] for text in texts]

    def question(self, text: str) -> list[int]:
        """``[CLS] text [SEP]``; a text that is too long keeps its beginning and its end."""
        ids = self.pieces(text)
        room = self.question_tokens - 2
        if len(ids) > room:
            head = room * 2 // 3
            ids = ids[:head] + ids[len(ids) - (room - head) :]
        return [self.user, *ids, self.answer]

    def unknown_share(self, ids: Sequence[int]) -> float:
        """Share of the question's pieces that the vocabulary does not know, 0–1."""
        inner = ids[1:-1]
        return sum(i == self.unknown for i in inner) / len(inner) if inner else 1.0

    def reply(
        self, condition: int, intent: str, symptoms: Sequence[str], treatments: Sequence[str]
    ) -> list[int]:
        """Ids of an answer: condition (0 = none), intent, items; whole items only, always closed by ``[end]``."""
        ids = [self.none + condition, self.intents[INTENTS.index(intent)]]
        lists: tuple[tuple[int, Sequence[str]], ...] = ((self.item, symptoms), (self.treatments, treatments))
        for mark, values in lists:
            for at, value in enumerate(values):
                piece = self.pieces(value)
                lead = (
                    [mark if at == 0 and mark == self.treatments else self.item]
                    if ids[2:] or mark == self.treatments
                    else []
                )
                if len(ids) + len(lead) + len(piece) + 1 > self.answer_tokens:
                    break
                ids += lead + piece
        return [*ids, self.end]

    def read(self, ids: Sequence[int]) -> Decoded:
        """Read back the tokens that follow the condition token."""
        intent = INTENTS[self.intents.index(ids[0])] if ids and ids[0] in self.intents else "none"
        lists: list[list[str]] = [[], []]
        spans: list[list[tuple[int, int]]] = [[], []]
        which, begin = 0, 1
        for at in range(1, len(ids) + 1):
            token = ids[at] if at < len(ids) else self.end
            if token in (self.item, self.treatments, self.end):
                text = self.tokenizer.decode(list(ids[begin:at])).strip()
                if text and text not in lists[which]:
                    lists[which].append(text)
                    spans[which].append((begin, at))
                begin = at + 1
                if token == self.treatments:
                    which = 1
                if token == self.end:
                    break
        return Decoded(intent, tuple(lists[0]), tuple(lists[1]), tuple(spans[0] + spans[1]))
