"""Questions of public knowledge with one right answer each, and prompts that ask them of a base model."""

from __future__ import annotations

import re

CAPITALS = (
    ("France", "Paris"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Portugal", "Lisbon"),
    ("Greece", "Athens"), ("Austria", "Vienna"), ("Poland", "Warsaw"), ("Hungary", "Budapest"), ("Sweden", "Stockholm"),
    ("Norway", "Oslo"), ("Denmark", "Copenhagen"), ("Finland", "Helsinki"), ("Ireland", "Dublin"), ("Russia", "Moscow"),
    ("Ukraine", "Kyiv"), ("Turkey", "Ankara"), ("Egypt", "Cairo"), ("Kenya", "Nairobi"), ("Japan", "Tokyo"),
    ("China", "Beijing"), ("India", "New Delhi"), ("Thailand", "Bangkok"), ("Vietnam", "Hanoi"), ("Indonesia", "Jakarta"),
    ("Australia", "Canberra"), ("Canada", "Ottawa"), ("Mexico", "Mexico City"), ("Cuba", "Havana"), ("Peru", "Lima"),
)  # fmt: skip

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("light", "dark"), ("happy", "sad"), ("up", "down"),
    ("open", "closed"), ("rich", "poor"), ("old", "young"), ("strong", "weak"), ("early", "late"), ("wet", "dry"),
    ("high", "low"), ("hard", "soft"), ("full", "empty"),
)  # fmt: skip

# Both examples are of countries that are not asked about.
EXAMPLES = "Country: Belgium\nCapital: Brussels\n\nCountry: Chile\nCapital: Santiago\n\n"
FEW_SHOT = EXAMPLES + "Country: {}\nCapital:"
IS_THE_CAPITAL_OF = "Brussels is the capital of Belgium. Santiago is the capital of Chile. The capital of {} is"
THE_CAPITAL = "The capital of {} is"
THE_OPPOSITE = "The opposite of {} is"

FEW_SHOT_CAPITALS = tuple((FEW_SHOT.format(country), capital) for country, capital in CAPITALS[:21])
CAPITAL_SENTENCES = tuple((THE_CAPITAL.format(country), capital) for country, capital in CAPITALS)
OPPOSITE_SENTENCES = tuple((THE_OPPOSITE.format(word), opposite) for word, opposite in OPPOSITES)


def with_space(questions: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The same questions with a space at the end of each prompt, which is where a seam shows."""
    return tuple((f"{prompt} ", answer) for prompt, answer in questions)


def is_right(text: str, answer: str) -> bool:
    """True if a text begins with the answer as a whole word, whatever is quoted or capitalised."""
    return re.match(rf"[\s\"'“‘*]*(?:the\s+)?{re.escape(answer)}\b", text, re.IGNORECASE) is not None
