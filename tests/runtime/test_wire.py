"""The wire between the two sides: all that may be said comes out as it went in, and all else is refused in a sentence."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

import parrot_nb as P
from parrot_nb.language.options import Options
from parrot_nb.runtime import messages
from parrot_nb.runtime.messages import Item, Message
from parrot_nb.runtime.wire import GREETING, HEADER, MAX_FRAME_BYTES, Frames, Wire, WireError

KINDS = [*((0, kind) for kind in get_args(Item)), *((1, kind) for kind in get_args(Message))]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ERRORS = st.builds(lambda kind, text: kind(text), st.sampled_from([P.SessionError, P.EngineError, ValueError, KeyError]), TEXT)


def values(kind: inspect.Type, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of a type, made from how msgspec sees it: nothing here is told of any message."""
    match kind:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case inspect.FloatType():
            return st.floats(allow_nan=False)
        case inspect.StrType():
            return TEXT
        case inspect.BytesType():
            return st.binary(max_size=8)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case inspect.AnyType():
            return st.none() | TEXT | st.integers(-9, 9) | st.lists(TEXT, max_size=2)
        case inspect.CustomType():
            assert kind.cls is BaseException
            return ERRORS
        case inspect.UnionType():
            narrow = kind.types if depth < 5 else [t for t in kind.types if isinstance(t, inspect.NoneType)] or kind.types[:1]
            return st.one_of([values(each, depth) for each in narrow])
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type, depth + 1), max_size=max(0, 2 - depth // 2)).map(tuple)
        case inspect.ListType():
            return st.lists(values(kind.item_type, depth + 1), max_size=2)
        case inspect.FrozenSetType():
            return st.frozensets(values(kind.item_type, depth + 1), max_size=2)
        case inspect.TupleType():
            return st.tuples(*(values(each, depth + 1) for each in kind.item_types))
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type, depth + 1), values(kind.value_type, depth + 1), max_size=2)
        case inspect.StructType() | inspect.DataclassType():
            fields = {field.name: values(field.type, depth + 1) for field in kind.fields}
            return st.fixed_dictionaries(fields).map(lambda given: made(kind.cls, given))
    raise AssertionError(f"what is a {kind}?")


def made(cls: type, given: dict[str, Any]) -> Any:
    return cls(**given)


def plain(value: Any) -> Any:
    """A value in which errors are compared by what they say."""
    if isinstance(value, BaseException):
        return type(value), str(value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    if isinstance(value, msgspec.Struct) or hasattr(value, "__dataclass_fields__"):
        names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else value.__dataclass_fields__
        return type(value), {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, float) and math.isinf(value):
        return "endless", value > 0
    return value


@pytest.mark.parametrize(("side", "kind"), KINDS, ids=[kind.__name__ for _, kind in KINDS])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_what_is_said_is_what_is_heard(side, kind, data):
    said = data.draw(values(inspect.type_info(kind)))
    frame = Wire(1 - side).frame([said, said])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frame)), max_size=4)))
    frames = Frames()
    parts = [frame[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]
    [payload] = [payload for part in parts for payload in frames.add(part)]
    heard = Wire(side).items(payload)
    assert [plain(item) for item in heard] == [plain(said)] * 2


@given(st.sampled_from([0, 1]), st.binary(max_size=60))
@settings(deadline=None, max_examples=300)
def test_junk_is_refused(side, junk):
    try:
        heard = Wire(side).items(junk)
    except WireError:
        return
    assert all(isinstance(item, get_args(Item if side == 0 else Message)) for item in heard)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_message_that_was_cut_or_changed_is_refused_or_is_another_message(data):
    reading = messages.Reading((1, 2, 3), P.LATENCY)
    payload = bytearray(Wire(0).frame([reading])[HEADER.size :])
    if data.draw(st.booleans()):
        del payload[data.draw(st.integers(0, len(payload) - 1)) :]
    else:
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        heard = Wire(1).items(bytes(payload))
    except WireError:
        return
    assert all(isinstance(item, get_args(Message)) for item in heard)


def test_messages_of_the_other_side_are_refused():
    told = Wire(0).frame([messages.Lost((1,))])[HEADER.size :]
    with pytest.raises(WireError, match="not a message of this version"):
        Wire(0).items(told)


def test_a_frame_that_claims_too_much_is_refused_before_it_comes():
    frames = Frames()
    with pytest.raises(WireError, match=f"a frame of {MAX_FRAME_BYTES + 1} bytes"):
        list(frames.add(struct.pack("<I", MAX_FRAME_BYTES + 1)))


def test_a_deeply_nested_frame_is_refused():
    with pytest.raises(WireError):
        Wire(1).items(b"\x91" * 100_000)


def said_by_a_process(*told: bytes) -> tuple[int, str]:
    """The code with which a runtime's process ends that hears this, and what it prints last."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "parrot_nb.runtime"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        process.stdin.write(b"".join(told))
        process.stdin.flush()  # and left open: a notebook that has gone is not told anything
        code = process.wait(timeout=120)
        assert GREETING in process.stdout.read()
        return code, (process.stderr.read().decode().strip().splitlines() or [""])[-1]


def start(version: int) -> bytes:
    return Wire(0).frame([messages.Start(version, None, "", {}, Options(), "parrot")])


def test_a_process_of_another_version_says_so_and_ends():
    code, last = said_by_a_process(start(messages.VERSION + 1), HEADER.pack(2**20))
    assert code == 3
    assert (
        f"This is version {messages.VERSION} of the runtime, the notebook's is {messages.VERSION + 1}: restart the kernel" in last
    )


@pytest.mark.parametrize(
    "told",
    [HEADER.pack(5) + b"hello", b"\xff" * 40, Wire(0).frame([messages.Lost((1,))]) + HEADER.pack(9)],
    ids=["no message", "no frame", "no start"],
)
def test_a_process_that_is_told_junk_says_so_and_ends(told):
    code, last = said_by_a_process(told)
    assert code == 4
    assert last.startswith("What the notebook tells cannot be understood, ")
