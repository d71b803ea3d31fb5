"""The small world of parrot-tiny: its words, repeatable draws, and which combinations are kept out of training.

Nothing here comes from another text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import TypeVar
from zlib import crc32

T = TypeVar("T")


def words(text: str) -> tuple[str, ...]:
    """The words of a text, each once."""
    return tuple(dict.fromkeys(text.split()))


NAMES = words("""Ada Amir Anna Ben Bela Carla Chen Dana David Elif Emma Farid Finn Grace Hana Hugo Ines Ivan Jane Jonas Kofi Lara Leo
    Lena Luis Maria Mei Mira Nadia Noah Olga Omar Paula Peter Priya Rosa Sam Sofia Tariq Tessa Uma Victor Wanda Yusuf Zoe Alice Bob Clara
    Diego Eva Felix Gita Henry Iris Jack Karim Lily Marco Nina Oscar Petra Ravi Sara Tom""")

OBJECTS = words("""plan report budget draft release design page table chart model list note schedule contract proposal survey invoice
    letter poster slide guide map menu form script ticket catalogue archive backup server window database index query cache logo banner
    brochure prototype sample manual license agenda summary forecast roadmap newsletter website diagram spreadsheet password policy
    printer camera projector keyboard calendar folder dashboard""")

ADJECTIVES = words("""new old short long final first second small large clear quiet simple public private weekly daily early shared red
    blue green yellow black white spare missing hidden secret yearly monthly formal local global revised""")

VERB_FORMS = {  # what somebody will do, and what they did
    "send": "sent", "review": "reviewed", "write": "wrote", "check": "checked", "print": "printed", "update": "updated",
    "test": "tested", "move": "moved", "fix": "fixed", "present": "presented", "deliver": "delivered", "change": "changed",
    "explain": "explained", "approve": "approved", "measure": "measured", "collect": "collected", "order": "ordered",
    "translate": "translated", "publish": "published", "sign": "signed", "rename": "renamed", "copy": "copied",
    "delete": "deleted", "share": "shared", "clean": "cleaned", "repair": "repaired", "replace": "replaced", "sort": "sorted",
    "scan": "scanned", "finish": "finished",
}  # fmt: skip
VERBS = tuple(VERB_FORMS)

DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
PLACES = words("office kitchen garden library station school museum harbour market workshop hall")

_SYLLABLES = words("""ba be bo da de di do fa fe ga ge go ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe ra re ri ro sa se si so ta te
    ti to va ve vi vo za ze zo""")

_HELD_OUT_SHARE = 8  # one combination in so many is never trained on


@cache
def is_held_out(left: str, right: str) -> bool:
    """Whether this combination of two words (a name and an object, say) is for evaluation only."""
    return crc32(f"{left} {right}".encode()) % _HELD_OUT_SHARE == 0


class Draw:
    """Random choices that are the same for the same seed on every platform and Python.

    `random.Random.random` is the one draw that Python promises never to change, so everything is made from it.

    Args:
        seed: an integer or text.
        held_out: whether `pair` draws combinations for evaluation, or those for training.
    """

    def __init__(self, seed: int | str, *, held_out: bool = False) -> None:
        self.held_out = held_out
        self._random = random.Random(seed).random  # noqa: S311 - repeatable, not secret

    def below(self, count: int) -> int:
        """An integer from 0 to `count` - 1."""
        return int(self._random() * count)

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self._random() * len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items, in random order."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]

    def made_up_name(self) -> str:
        """A name of two or three syllables."""
        return "".join(self.choice(_SYLLABLES) for _ in range(self.between(2, 3))).capitalize()

    def pair(self, left: Sequence[str], right: Sequence[str]) -> tuple[str, str]:
        """One of each, as a combination that belongs to this draw's side of the hold-out."""
        while True:
            pair = self.choice(left), self.choice(right)
            if is_held_out(*pair) == self.held_out:
                return pair
