"""The 0.8 split: seeded, by group, with a check that no group stands on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from symptomchat.errors import SymptomChatError

Item = TypeVar("Item")


def split_by_group(
    rows: Sequence[Item], group: Callable[[Item], str], share: float, seed: int
) -> tuple[list[Item], list[Item]]:
    """Split rows into (training, validation).

    A group goes to training when the hash of seed and group, read as a number in [0, 1), is below ``share``:
    adding a source later never moves a group to the other side.

    Raises:
        SymptomChatError: one side would be empty.
    """
    sides: tuple[list[Item], list[Item]] = ([], [])
    for row in rows:
        digest = hashlib.sha256(f"{seed}|{group(row)}".encode("utf-8", "surrogatepass")).digest()
        sides[int.from_bytes(digest[:8], "big") / 2**64 >= share].append(row)
    if not sides[0] or not sides[1]:
        raise SymptomChatError(
            f"split: {len(rows)} rows leave one side empty; add rows or change train_share"
        )
    check_no_leak(sides[0], sides[1], group)
    return sides


def check_no_leak(training: Sequence[Item], validation: Sequence[Item], group: Callable[[Item], str]) -> None:
    """Raise unless the two sides share no group."""
    shared = {group(row) for row in training} & {group(row) for row in validation}
    if shared:
        raise SymptomChatError(
            f"split: {len(shared)} groups stand on both sides (for example '{sorted(shared)[0]}'); split by group"
        )
