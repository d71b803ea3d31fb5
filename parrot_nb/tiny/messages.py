"""Tasks about single messages: how urgent, how friendly, and what they are in Spanish."""

from __future__ import annotations

from parrot_nb.tiny.cases import Case, phrased
from parrot_nb.tiny.words import ADJECTIVES, DAYS, NAMES, OBJECTS, PLACES, VERBS, Draw

URGENCY = phrased(
    (
        "How urgent is this message? Answer with one word: high, normal or low.\n",
        "You sort the messages of a team by urgency (high, normal, low).\nMessage: ",
        "Classify the urgency of the message.\n",
        "",
    ),
    "{{input:message}}",
    (
        "Urgency: {{output:word}}",
        "Urgency:\n{{output:word}}",
        "Is the urgency of the message above high, normal or low?\n{{output:word}}",
    ),
)
SENTIMENT = phrased(
    (
        "What is the sentiment of this message? Answer with one word: positive, negative or neutral.\n",
        "You read the messages of customers.\nMessage: ",
        "Classify the sentiment of the message.\n",
        "",
    ),
    "{{input:message}}",
    (
        "Sentiment: {{output:word}}",
        "Sentiment:\n{{output:word}}",
        "Is the message above positive, negative or neutral?\n{{output:word}}",
    ),
)
TRANSLATE = phrased(
    (
        "Translate into Spanish.\n",
        "You are a translator. Translate the sentence from English into Spanish.\nEnglish: ",
        "Translate the sentence into Spanish.\nSentence: ",
        "",
    ),
    "{{input:sentence}}",
    ("Spanish: {{output:spanish}}", "In Spanish:\n{{output:spanish}}", "Translation: {{output:spanish}}"),
)

_URGENCY_CUES = {
    "high": ("right now", "at once", "immediately", "within the hour", "as fast as you can", "before noon"),
    "normal": ("this week", "by {day}", "in the next days", "after the meeting", "when the {object} is ready"),
    "low": ("some day", "whenever you like", "when there is time", "but there is no hurry", "next year", "if you are bored"),
}
_PRAISE = ("great", "excellent", "wonderful", "perfect", "beautiful", "helpful", "brilliant", "lovely")
_BLAME = ("awful", "terrible", "useless", "ugly", "broken", "wrong", "disappointing", "horrible")
_FACTS = ("in the {place}", "on the table", "from {day}", "for the {place}", "in two parts")
_OPENERS = (
    "Hello {name}.",
    "Dear {name},",
    "Good morning.",
    "I am in the {place}.",
    "It is {day}.",
    "The {object} is in the {place}.",
)

_MASCULINE, _FEMININE = 0, 1
_NOUNS = {
    "book": ("libro", _MASCULINE), "report": ("informe", _MASCULINE), "plan": ("plan", _MASCULINE), "car": ("coche", _MASCULINE),
    "paper": ("papel", _MASCULINE), "bread": ("pan", _MASCULINE), "hat": ("sombrero", _MASCULINE), "dog": ("perro", _MASCULINE),
    "notebook": ("cuaderno", _MASCULINE), "picture": ("cuadro", _MASCULINE), "garden": ("jard\u00edn", _MASCULINE),
    "boat": ("barco", _MASCULINE), "table": ("mesa", _FEMININE), "letter": ("carta", _FEMININE), "house": ("casa", _FEMININE),
    "door": ("puerta", _FEMININE), "window": ("ventana", _FEMININE), "chair": ("silla", _FEMININE), "key": ("llave", _FEMININE),
    "apple": ("manzana", _FEMININE), "shirt": ("camisa", _FEMININE), "lamp": ("l\u00e1mpara", _FEMININE),
    "kitchen": ("cocina", _FEMININE), "box": ("caja", _FEMININE),
}  # fmt: skip
_COLOURS = {
    "red": ("rojo", "roja"), "white": ("blanco", "blanca"), "black": ("negro", "negra"), "yellow": ("amarillo", "amarilla"),
    "new": ("nuevo", "nueva"), "old": ("viejo", "vieja"), "expensive": ("caro", "cara"), "small": ("peque\u00f1o", "peque\u00f1a"),
    "green": ("verde", "verde"), "blue": ("azul", "azul"), "large": ("grande", "grande"), "clean": ("limpio", "limpia"),
}  # fmt: skip
_DOES = {
    "sees": "ve", "buys": "compra", "sells": "vende", "paints": "pinta", "cleans": "limpia", "looks for": "busca",
    "finds": "encuentra", "needs": "necesita", "has": "tiene", "wants": "quiere", "draws": "dibuja", "opens": "abre",
}  # fmt: skip
_WHENS = {"today": "hoy", "tomorrow": "ma\u00f1ana", "now": "ahora", "always": "siempre", "never": "nunca", "here": "aqu\u00ed"}
_ARTICLES = {"the": ("el", "la"), "a": ("un", "una")}


def urgency(draw: Draw, size: int) -> Case:
    """How urgent a message is."""
    word = draw.choice(tuple(_URGENCY_CUES))
    name, thing = draw.pair(NAMES, OBJECTS)
    thing = f"{draw.choice(ADJECTIVES)} {thing}"
    request = draw.choice(
        (
            "Please {verb} the {object} {cue}.",
            "{name}, can you {verb} the {object} {cue}?",
            "We have to {verb} the {object} {cue}.",
        )
    )
    message = _message(draw, size, request.replace("{cue}", draw.choice(_URGENCY_CUES[word])), name, thing)
    return Case("urgency", draw.choice(URGENCY), {"message": message}, {"word": word})


def sentiment(draw: Draw, size: int) -> Case:
    """How friendly a message is."""
    word = draw.choice(("positive", "negative", "neutral"))
    name, thing = draw.pair(NAMES, OBJECTS)
    thing = f"{draw.choice(ADJECTIVES)} {thing}"
    if word == "neutral":
        opinion = "The {object} is " + draw.choice(_FACTS) + "."
    else:
        # A "not" turns praise into blame and the other way round.
        negated = draw.chance(0.3)
        said = draw.choice(_PRAISE if (word == "positive") != negated else _BLAME)
        opinion = draw.choice(
            ("The {object} is {not}{said}.", "I think the {object} is {not}{said}.", "For {name} the {object} is {not}{said}.")
        )
        opinion = opinion.replace("{not}", "not " if negated else "").replace("{said}", said)
    return Case("sentiment", draw.choice(SENTIMENT), {"message": _message(draw, size, opinion, name, thing)}, {"word": word})


def _message(draw: Draw, size: int, sentence: str, name: str, thing: str) -> str:
    def filled(text: str) -> str:
        return text.format(name=name, object=thing, verb=draw.choice(VERBS), day=draw.choice(DAYS), place=draw.choice(PLACES))

    sentences = [filled(draw.choice(_OPENERS)) for _ in range(draw.between(*((0, 0), (0, 1), (0, 3), (2, 8))[size]))]
    sentences.insert(draw.below(len(sentences) + 1), filled(sentence))
    return " ".join(sentences)


def translate(draw: Draw, size: int) -> Case:
    """A sentence of a fixed lexicon into Spanish."""
    clauses = [_clause(draw) for _ in range(draw.between(*((1, 1), (1, 2), (1, 3), (2, 4))[size]))]
    return Case(
        "translate",
        draw.choice(TRANSLATE),
        {"sentence": " and ".join(english for english, _ in clauses) + "."},
        {"spanish": " y ".join(spanish for _, spanish in clauses) + "."},
    )


def _clause(draw: Draw) -> tuple[str, str]:
    noun, adjective = draw.pair(tuple(_NOUNS), tuple(_COLOURS))
    name, does, article = draw.choice(NAMES), draw.choice(tuple(_DOES)), draw.choice(tuple(_ARTICLES))
    spanish_noun, gender = _NOUNS[noun]
    english = f"{name} {does} {article} {adjective} {noun}"
    spanish = f"{name} {_DOES[does]} {_ARTICLES[article][gender]} {spanish_noun} {_COLOURS[adjective][gender]}"
    if draw.chance(0.4):
        when = draw.choice(tuple(_WHENS))
        return f"{english} {when}", f"{spanish} {_WHENS[when]}"
    return english, spanish
