"""Functions whose calls are nodes of the graph: what prompts and Python functions have in common, and what a type checker knows
of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Protocol, TypeAlias, TypeVar, overload

from parrot_nb.language import calling
from parrot_nb.language.calls import Call
from parrot_nb.language.defined import Defined
from parrot_nb.language.host import current_host
from parrot_nb.language.static import A, B, C, D, E, Params, Rest, T, T_co, V_co
from parrot_nb.language.variable import SemanticVariable, VariableList

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple

    Each = TypeVarTuple("Each")
    A_contra = TypeVar("A_contra", contravariant=True)
    B_contra = TypeVar("B_contra", contravariant=True)
    C_contra = TypeVar("C_contra", contravariant=True)
    D_contra = TypeVar("D_contra", contravariant=True)
    E_contra = TypeVar("E_contra", contravariant=True)

    class Outputs(tuple[*Each]):
        """The variables, or lists of variables, that a prompt with several outputs returns: a namedtuple, whose names a type
        checker cannot know."""

        __slots__ = ()

        def __getattr__(self, name: str) -> Any: ...

    class Frame(Protocol):
        """A data frame, of pandas or polars."""

        @property
        def columns(self) -> Any: ...

    Table: TypeAlias = Frame | Iterable[Mapping[str, Any]]

    class Takes1(Protocol[A_contra, Rest, T_co]):
        def _exactly(self, a: A_contra, /, *args: Rest.args, **kwargs: Rest.kwargs) -> T_co: ...

    class Takes2(Protocol[A_contra, B_contra, Rest, T_co]):
        def _exactly(self, a: A_contra, b: B_contra, /, *args: Rest.args, **kwargs: Rest.kwargs) -> T_co: ...

    class Takes3(Protocol[A_contra, B_contra, C_contra, Rest, T_co]):
        def _exactly(self, a: A_contra, b: B_contra, c: C_contra, /, *args: Rest.args, **kwargs: Rest.kwargs) -> T_co: ...

    class Takes4(Protocol[A_contra, B_contra, C_contra, D_contra, Rest, T_co]):
        def _exactly(
            self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, /, *args: Rest.args, **kwargs: Rest.kwargs
        ) -> T_co: ...

    class Takes5(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, Rest, T_co]):
        def _exactly(
            self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, e: E_contra, /, *args: Rest.args, **kwargs: Rest.kwargs
        ) -> T_co: ...


# An argument: a value, a variable of it, or variables that are joined (a native function gets a list of values).
Argument: TypeAlias = A | SemanticVariable[A] | VariableList[Any] | list[SemanticVariable[Any]]


class GraphFunction(Defined, Generic[Params, V_co]):
    """Base of functions whose calls are nodes of the graph.

    A type checker lets every positional argument be a value or a variable of it, up to five of them. An argument by name must be what
    its annotation says: `str | SemanticVariable[str]` where it is given both.
    """

    name: str
    output_names: tuple[str, ...]

    if TYPE_CHECKING:

        def _exactly(self, /, *args: Params.args, **kwargs: Params.kwargs) -> V_co: ...

    # Pyright follows the parameters of a function through `Concatenate`, mypy through a protocol; neither does both.
    @overload
    def __call__(self, /, *args: Params.args, **kwargs: Params.kwargs) -> V_co: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[A, Rest], T], a: Argument[A], /, *args: Rest.args, **kwargs: Rest.kwargs
    ) -> T: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[A, B, Rest], T],
        a: Argument[A],
        b: Argument[B],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[A, B, C, Rest], T],
        a: Argument[A],
        b: Argument[B],
        c: Argument[C],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[A, B, C, D, Rest], T],
        a: Argument[A],
        b: Argument[B],
        c: Argument[C],
        d: Argument[D],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[A, B, C, D, E, Rest], T],
        a: Argument[A],
        b: Argument[B],
        c: Argument[C],
        d: Argument[D],
        e: Argument[E],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[SemanticVariable[A], Rest], T], a: Argument[A], /, *args: Rest.args, **kwargs: Rest.kwargs
    ) -> T: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[SemanticVariable[A], SemanticVariable[B], Rest], T],
        a: Argument[A],
        b: Argument[B],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(
        self: GraphFunction[Concatenate[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C], Rest], T],
        a: Argument[A],
        b: Argument[B],
        c: Argument[C],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(self: Takes1[A, Rest, T], a: Argument[A], /, *args: Rest.args, **kwargs: Rest.kwargs) -> T: ...
    @overload
    def __call__(
        self: Takes2[A, B, Rest, T], a: Argument[A], b: Argument[B], /, *args: Rest.args, **kwargs: Rest.kwargs
    ) -> T: ...
    @overload
    def __call__(
        self: Takes3[A, B, C, Rest, T], a: Argument[A], b: Argument[B], c: Argument[C], /, *args: Rest.args, **kwargs: Rest.kwargs
    ) -> T: ...
    @overload
    def __call__(
        self: Takes4[A, B, C, D, Rest, T],
        a: Argument[A],
        b: Argument[B],
        c: Argument[C],
        d: Argument[D],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(
        self: Takes5[A, B, C, D, E, Rest, T],
        a: Argument[A],
        b: Argument[B],
        c: Argument[C],
        d: Argument[D],
        e: Argument[E],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(self: Takes1[SemanticVariable[A], Rest, T], a: Argument[A], /, *args: Rest.args, **kwargs: Rest.kwargs) -> T: ...
    @overload
    def __call__(
        self: Takes2[SemanticVariable[A], SemanticVariable[B], Rest, T],
        a: Argument[A],
        b: Argument[B],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    @overload
    def __call__(
        self: Takes3[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C], Rest, T],
        a: Argument[A],
        b: Argument[B],
        c: Argument[C],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> T: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Add a call to the graph; returns its output variable, or a namedtuple of them for several outputs.

        Raises:
            ArgumentError: missing, extra or doubled arguments.
            InputValueError: a plain value has no one obvious text.
            SessionError: the session is closed, or a variable belongs to another one.
        """
        return calling.submitted(current_host(), self.make_call(args, kwargs))

    @abstractmethod
    def make_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call for these arguments, not yet submitted; raises as calling does."""

    @overload
    def map(self, table: Table, /, **kwargs: Any) -> Any: ...
    @overload
    def map(self: GraphFunction[..., SemanticVariable[A]], /, *args: Any, **kwargs: Any) -> VariableList[A]: ...
    @overload
    def map(
        self: GraphFunction[..., Outputs[SemanticVariable[A], SemanticVariable[B]]], /, *args: Any, **kwargs: Any
    ) -> Outputs[VariableList[A], VariableList[B]]: ...
    @overload
    def map(
        self: GraphFunction[..., Outputs[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C]]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Outputs[VariableList[A], VariableList[B], VariableList[C]]: ...
    @overload
    def map(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def map(self, /, *args: Any, **kwargs: Any) -> Any:
        """One call per item: `f.map(xs)`, `f.map(x=xs, y=const)`. Lists of equal length go in step; texts and variables
        are the same for all. Or one call per row of a table: `f.map(df)`, `f.map(df, x="column", on_error="raise")`.

        Returns:
            A `VariableList`, or where the prompt has several outputs a namedtuple of them. `Rows` for a table: a data frame, or an
            iterable of dicts, given by position.

        Raises:
            ArgumentError: no list, lists of different lengths, or a table without a column that is needed.
            InputValueError: a plain value has no one obvious text.
            SessionError: the session is closed, or a variable belongs to another one.
        """
        return calling.map_over(current_host(), self, args, kwargs)
