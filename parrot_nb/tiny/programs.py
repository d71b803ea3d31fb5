"""Tasks about code: plan, write, test, review and revise small Python functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from parrot_nb.tiny.cases import ANSWER, Case, phrased
from parrot_nb.tiny.words import Draw, words

WRITE_CODE = (
    "You are an expert software engineer.\nWrite python code of {{input:task}}.\nCode: {{output:code}}",
    *phrased(
        ("Write a Python function.\nTask: ", "You are an expert software engineer.\nWrite python code.\nTask: ", "Write ", "# "),
        "{{input:task}}",
        ("Code:\n{{output:code}}", "Code: {{output:code}}", "{{output:code}}"),
    ),
)
WRITE_TEST = (
    "You are an experienced QA engineer. You write test code for {{input:task}}.\nCode: {{input:code}}\nYour test code: {{output:test}}",
    "You write test code for {{input:task}}.\nCode:\n{{input:code}}\nTest: {{output:test}}",
    *phrased(
        ("Write an assert for this code.\n", "You are an experienced QA engineer. You write test code.\nCode: ", ""),
        "{{input:code}}",
        ("Assert: {{output:test}}", "Test:\n{{output:test}}", "\n# a test\n{{output:test}}"),
    ),
)
WRITE_TEST_WITH = phrased(
    ("Write an assert for this code.\n", "You are an experienced QA engineer. You write test code.\nCode: ", ""),
    "{{input:code}}",
    (
        "Argument: {{input:argument}}\nAssert: {{output:test}}",
        "Test it with {{input:argument}}.\n{{output:test}}",
        "\n# a test with {{input:argument}}\n{{output:test}}",
    ),
)
REVIEW = phrased(
    (
        "You are a strict reviewer. Accept the code or name its flaw.\nTask: ",
        "Does this code do its task?\nTask: ",
        "Review the code of ",
        "Review the code.\nTask: ",
    ),
    "{{input:task}}",
    (
        "Code:\n{{input:code}}\nReview: {{output:review}}",
        "{{input:code}}\nReview:\n{{output:review}}",
        "Code: {{input:code}}\n{{output:review}}",
    ),
)
REVISE = phrased(
    (
        "You are an expert software engineer. Revise your code after the review.\nCode:\n",
        "Change the code as the reviewer says.\nCode: ",
        "Revise the code.\n",
        "",
    ),
    "{{input:code}}",
    (
        "Review: {{input:review}}\nNew code:\n{{output:revised}}",
        "{{input:review}}\n{{output:revised}}",
        "Review: {{input:review}}\nRevised code: {{output:revised}}",
    ),
)
PLAN = phrased(
    (
        "You are an architect. List the functions of this module, one per line.\n",
        "Plan the functions of a module.\nModule: ",
        "",
    ),
    "{{input:module}}",
    ("Functions:\n{{output:functions}}", "The functions to write:\n{{output:functions}}", "Plan: {{output:functions}}"),
)

ACCEPT = "accept"

_VERBS = words("""get make load scale turn find pick show apply take build read give set move shift parse clean handle update compute
    fetch store adjust convert""")
_NOUNS = words("""price score level total index count value item order entry record user file node state field signal point
    weight length speed rate limit offset amount sum""")
_NUMBER_ARGUMENTS = words("x n number value amount price score size age width height step")
_LIST_ARGUMENTS = words("items values numbers scores prices sizes ages rows")
_TEXT_ARGUMENTS = words("text name title word label line")
_WORDS = words("red blue green hello yes no end new old done big top one two")


@dataclass(frozen=True, slots=True)
class Kind:
    """Operation that a function may do.

    Attributes:
        does: the description, with `{a}` for the argument and `{k}` for a number or word.
        body: the expression it returns.
        change: what a reviewer calls it.
        takes: what its argument is: number, list or text.
        rivals: what a careless coder writes instead.
    """

    does: str
    body: str
    change: str
    takes: str
    rivals: tuple[str, ...] = ()


KINDS = {
    "add": Kind("adds {k} to {a}", "{a} + {k}", "add", "number", ("subtract", "multiply")),
    "subtract": Kind("subtracts {k} from {a}", "{a} - {k}", "subtract", "number", ("add", "multiply")),
    "multiply": Kind("multiplies {a} by {k}", "{a} * {k}", "multiply", "number", ("add", "subtract")),
    "more": Kind("checks if {a} is more than {k}", "{a} > {k}", "check for more", "number", ("less", "equal")),
    "less": Kind("checks if {a} is less than {k}", "{a} < {k}", "check for less", "number", ("more", "equal")),
    "equal": Kind("checks if {a} is equal to {k}", "{a} == {k}", "check for equal", "number", ("more", "less")),
    "first": Kind("returns the first of {a}", "{a}[0]", "return the first", "list", ("last", "largest", "smallest")),
    "last": Kind("returns the last of {a}", "{a}[-1]", "return the last", "list", ("first", "largest", "smallest")),
    "largest": Kind("returns the largest of {a}", "max({a})", "return the largest", "list", ("smallest", "first", "last")),
    "smallest": Kind("returns the smallest of {a}", "min({a})", "return the smallest", "list", ("largest", "first", "last")),
    "reverse": Kind("reverses {a}", "{a}[::-1]", "reverse", "list"),
    "count": Kind("counts {a}", "len({a})", "count", "list"),
    "append": Kind('puts "{k}" after {a}', '{a} + "{k}"', "put it after", "text", ("prepend",)),
    "prepend": Kind('puts "{k}" before {a}', '"{k}" + {a}', "put it before", "text", ("append",)),
}
_ARGUMENTS = {"number": _NUMBER_ARGUMENTS, "list": _LIST_ARGUMENTS, "text": _TEXT_ARGUMENTS}
USUAL_TEST = {"number": "3", "list": "[3, 1, 2]", "text": '"red"'}


@dataclass(frozen=True, slots=True)
class Function:
    """A small Python function: its name, argument, what it does, and the number or word it does it with."""

    name: str
    argument: str
    kind: str
    constant: str

    @property
    def does(self) -> str:
        """Description of the operation, in words."""
        return KINDS[self.kind].does.format(a=self.argument, k=self.constant)

    @property
    def task(self) -> str:
        """Request for the function, in words."""
        return f"a function {self.name} that {self.does}"

    @property
    def code(self) -> str:
        """The Python code."""
        return f"def {self.name}({self.argument}):\n    return {KINDS[self.kind].body.format(a=self.argument, k=self.constant)}"

    def test(self, argument: str) -> str:
        """An assert that holds for `code`."""
        return f"assert {self.name}({argument}) == {_literal(self.apply(argument))}"

    def apply(self, argument: str) -> object:
        """Return the function's result for a Python literal."""
        value = _value(argument)
        expression = KINDS[self.kind].body.format(a="argument", k=self.constant)
        # The expression is one of the fourteen above, with a number or a word of ours in it.
        return eval(expression, {"__builtins__": {"len": len, "max": max, "min": min}}, {"argument": value})  # noqa: S307

    @property
    def takes(self) -> str:
        """Kind of the argument: number, list or text."""
        return KINDS[self.kind].takes


def _value(literal: str) -> object:
    if literal.startswith("["):
        return [int(number) for number in literal[1:-1].split(", ")]
    return literal.strip('"') if literal.startswith('"') else int(literal)


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def draw_function(draw: Draw) -> Function:
    """Draw any function."""
    verb, noun = draw.pair(_VERBS, _NOUNS)
    kind = draw.choice(tuple(KINDS))
    return Function(f"{verb}_{noun}", draw.choice(_ARGUMENTS[KINDS[kind].takes]), kind, _constant(draw, kind))


def _constant(draw: Draw, kind: str) -> str:
    takes = KINDS[kind].takes
    return draw.choice(_WORDS) if takes == "text" else str(draw.between(1, 9)) if takes == "number" else ""


def draw_argument(draw: Draw, function: Function) -> str:
    """A Python literal to test the function with."""
    if function.takes == "number":
        return str(draw.between(1, 9))
    if function.takes == "text":
        return f'"{draw.choice(_WORDS)}"'
    return str([draw.between(0, 9) for _ in range(draw.between(2, 4))])


def draw_flaw(draw: Draw, function: Function) -> tuple[Function, str]:
    """A function that differs in one thing, and the review that says how to get the right one back."""
    kind = KINDS[function.kind]
    flaws = ["name", "argument"] + ["kind"] * bool(kind.rivals) * 2 + ["constant"] * (kind.takes != "list") * 2
    flaw = draw.choice(flaws)
    while True:
        other = draw_function(draw)
        if flaw == "name":
            wrong = replace(function, name=other.name)
            review = f"The name should be {function.name}, not {wrong.name}."
        elif flaw == "argument":
            wrong = replace(function, argument=draw.choice(_ARGUMENTS[kind.takes]))
            review = f"The argument should be {function.argument}, not {wrong.argument}."
        elif flaw == "constant":
            wrong = replace(function, constant=_constant(draw, function.kind))
            sort = "word" if kind.takes == "text" else "number"
            review = f"The {sort} should be {function.constant}, not {wrong.constant}."
        else:
            wrong = replace(function, kind=draw.choice(kind.rivals))
            review = f"It should {kind.change}, not {KINDS[wrong.kind].change}."
        if wrong != function:
            return wrong, review


def _tested(function: Function) -> str:
    return f"{ANSWER}\n{function.test(USUAL_TEST[function.takes])}"


def write_code(draw: Draw, size: int) -> Case:
    """A function from its description."""
    function = draw_function(draw)
    template = draw.choice(WRITE_CODE)
    return Case("write_code", template, {"task": function.task}, {"code": function.code}, _tested(function))


def write_test(draw: Draw, size: int) -> Case:
    """An assert for given code."""
    function = draw_function(draw)
    inputs = {"task": function.task, "code": function.code}
    program = f"{function.code}\n{ANSWER}"
    if draw.chance(0.6):
        argument = draw_argument(draw, function)
        answers = {"test": function.test(argument)}
        return Case("write_test", draw.choice(WRITE_TEST_WITH), inputs | {"argument": argument}, answers, program)
    return Case("write_test", draw.choice(WRITE_TEST), inputs, {"test": function.test(USUAL_TEST[function.takes])}, program)


def review(draw: Draw, size: int) -> Case:
    """Accept code, or name its flaw."""
    function = draw_function(draw)
    given, comment = (function, ACCEPT) if draw.chance(0.35) else draw_flaw(draw, function)
    return Case("review", draw.choice(REVIEW), {"task": function.task, "code": given.code}, {"review": comment})


def revise(draw: Draw, size: int) -> Case:
    """Code after a review; accepted code stays as it is."""
    function = draw_function(draw)
    given, comment = (function, ACCEPT) if draw.chance(0.15) else draw_flaw(draw, function)
    return Case(
        "revise", draw.choice(REVISE), {"code": given.code, "review": comment}, {"revised": function.code}, _tested(function)
    )


def plan(draw: Draw, size: int) -> Case:
    """The functions of a module, from its description."""
    functions = [draw_function(draw) for _ in range(draw.between(*((1, 2), (2, 3), (2, 5), (4, 8))[size]))]
    return Case("plan", draw.choice(PLAN), {"module": module_of(functions)}, {"functions": "\n".join(f.task for f in functions)})


_CHECKS = {
    "name": "Is the name right?",
    "argument": "Is the argument right?",
    "kind": "Does it do the right thing?",
    "constant": "Is the number or word right?",
}


def checklist(draw: Draw, size: int) -> Case:
    """An exercise for reviewers: is this right, and that?"""
    function = draw_function(draw)
    kind = KINDS[function.kind]
    given = function
    if draw.chance(0.4):
        given = replace(given, name=draw_function(draw).name)
    if draw.chance(0.4):
        given = replace(given, argument=draw.choice(_ARGUMENTS[kind.takes]))
    if kind.rivals and draw.chance(0.4):
        given = replace(given, kind=draw.choice(kind.rivals))
    if draw.chance(0.4):
        given = replace(given, constant=_constant(draw, function.kind))
    checks = draw.some(tuple(_CHECKS), 4)
    template = "Task: {{input:task}}\nCode:\n{{input:code}}"
    for check in checks:
        template += f"\n{_CHECKS[check]} {{{{output:{check}}}}}"
    answers = {check: "yes" if getattr(given, check) == getattr(function, check) else "no" for check in checks}
    return Case("checklist", template, {"task": function.task, "code": given.code}, answers)


def sums(draw: Draw, size: int) -> Case:
    """An exercise for testers: what does this function give for one argument, and the next?"""
    function = draw_function(draw)
    while function.takes != "number" and draw.chance(0.7):
        function = draw_function(draw)
    template, inputs, answers = "Write asserts for this code.\n{{input:code}}", {"code": function.code}, {}
    for i in range(4):
        template += f"\nArgument: {{{{input:argument{i}}}}}\nAssert: {{{{output:test{i}}}}}"
        argument = inputs[f"argument{i}"] = draw_argument(draw, function)
        answers[f"test{i}"] = function.test(argument)
    return Case("sums", template, inputs, answers)


def module_of(functions: list[Function]) -> str:
    """Return a customer's description of a module."""
    return "A module with " + ", ".join(f"{f.name}, which {f.does}" for f in functions) + "."
