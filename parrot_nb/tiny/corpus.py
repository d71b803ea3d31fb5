"""The small world parrot-tiny talks about, as sentences that this code writes itself: meetings, people, code.

Nothing here comes from another text. The same count and seed give the same sentences on every platform and Python.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

_LEXICON: dict[str, str] = {
    "name": """Ada Amir Anna Ben Bela Carla Chen Dana David Elif Emma Farid Finn Grace Hana Hugo Ines Ivan Jane Jonas Kofi Lara Leo Lena
        Luis Maria Mei Mira Nadia Noah Olga Omar Paula Peter Priya Rosa Sam Sofia Tariq Tessa Uma Victor Wanda Yusuf Zoe""",
    "role": "engineer designer manager writer tester analyst director planner student teacher customer reviewer assistant expert",
    "thing": """plan report budget draft release feature design test page table chart model report list note schedule contract
        proposal question answer problem summary project meeting message document error library function server client window
        button screen database index query cache token prompt image letter invoice survey map guide poster slide sample result""",
    "part": "first part second part last section title footer header opening end middle summary appendix cover history",
    "adjective": """new old short long open final early late small large clear quiet simple urgent important missing broken ready
        careful slow fast better useful public private weekly daily early shared common wrong right next previous good bad happy""",
    "verb": """write review send finish prepare check update test build read move fix present plan deliver change explain
        discuss approve measure collect compare order translate call answer print remove publish sign rename merge""",
    "past": """agreed decided promised asked offered forgot planned wanted tried hoped refused started""",
    "said": "said asked answered explained added reported noted repeated suggested replied",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday today tomorrow tonight",
    "month": "January February March April May June July August September October November December",
    "place": "office kitchen garden library station school museum harbour market workshop hall",
    "feeling": "happy worried tired pleased surprised angry calm curious proud sorry",
    "adverb": "quickly carefully again together later soon already often never always still almost really alone",
    "noun": """snake game board player score string number word value line file name key item letter list loop count total sum price length
        index queue stack tree graph node edge path date time""",
    "code_name": "snake total count words values items result text number index names score move turn add first last size reverse",
    "type": "str int float bool list dict",
    "because": "because so but while although and before after until since when",
}

_SENTENCES: tuple[str, ...] = (
    "{name} will {verb} the {adjective} {thing} by {day}.",
    "{name} {past} to {verb} the {thing} with {name} on {day}.",
    "{name}: I will {verb} the {thing}, {because} the {thing} is {adjective}.",
    "{name} {said} that the {thing} for the {role} is {adjective}.",
    "The {role} was {feeling} {because} nobody could {verb} the {thing} {adverb}.",
    "Who will {verb} the {thing}? {name} will do it on {digit} {month}.",
    "What did {name} ask for? The {adjective} {thing} from the {place}.",
    "When is the {thing} due? It is due on {day}, {digit} {month}.",
    "Action item: {name} should {verb} the {thing} before the meeting on {day}.",
    "Decision: we {verb} the {adjective} {thing} first and {verb} the {thing} later.",
    "Summary: {name} and {name} talked about the {thing}; the {part} needs work.",
    "We met in the {place} at {digit}:{digit}{digit} and {past} to {verb} it {adverb}.",
    "You are an {adjective} {role}. You write {noun} code of a {noun} {noun}.",
    "You are a {role}. Write the {thing} in one {adjective} sentence.",
    "Please {verb} this {thing} and give me the {part} of it in your own words.",
    "Here is a {adjective} {thing} that {name} could not {verb} in the {place}.",
    "If there is no {thing}, they would have to {verb} one from the {thing}.",
    "It has {digit} {noun} items, which were {adjective} at the {part}.",
    '{{"who": "{name}", "what": "{verb} the {thing}", "when": "{day}"}}',
    "def {code_name}({noun}: {type}) -> {type}:\n    return {noun}",
    "def {code_name}({noun}, {noun}):\n    for {noun} in {noun}:\n        if {noun} == {digit}:\n            return True\n    return False",
    "assert {code_name}({digit}) == {digit}",
    "class {noun}:\n    def __init__(self, {noun}):\n        self.{noun} = {noun}",
    "Code: import {code_name}\nprint(len({noun}) + {digit})",
    "Your test code: the {noun} of the {noun} must not be empty.",
)

_SLOT = re.compile(r"\{(\w+)\}")


def sentences(count: int, seed: int) -> Iterator[str]:
    """`count` sentences of the small world, the same for the same seed."""
    draw = random.Random(seed).random  # noqa: S311 - repeatable, not secret
    lexicon = {slot: tuple(dict.fromkeys(words.split())) for slot, words in _LEXICON.items()} | {"digit": tuple("0123456789")}

    def fill(match: re.Match[str]) -> str:
        words = lexicon[match[1]]
        return words[int(draw() * len(words))]  # random() is the one draw that Python promises never to change

    for i in range(count):
        yield _SLOT.sub(fill, _SENTENCES[i % len(_SENTENCES)]).replace("{{", "{").replace("}}", "}")
