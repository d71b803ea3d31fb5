"""Layout of a graph's cards: layers by longest path, order by barycentres (Sugiyama's method), in plain Python."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from parrot_nb.notebook.state import CallView, GraphState

CARD_WIDTH, CARD_HEIGHT = 236, 112
SMALL_WIDTH, SMALL_HEIGHT = 120, 40  # joins
GAP_X, GAP_Y = 84, 22
MARGIN = 14
STACK_FROM = 6  # so many like calls of a stage become one stacked card
SWEEPS = 4  # barycentre passes; more change nothing in graphs of this size


@dataclass(frozen=True, slots=True)
class Card:
    """A call's place, or that of several like calls; x and y are of its top left corner, in pixels."""

    calls: tuple[CallView, ...]
    x: float
    y: float
    width: float
    height: float

    @property
    def stacked(self) -> bool:
        """Whether it stands for several calls."""
        return len(self.calls) > 1


@dataclass(frozen=True, slots=True)
class Edge:
    """A variable on its way from one card to another; `count` of them where cards are stacked. `lost` where another one was first."""

    source: int
    target: int
    label: str
    count: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """All cards, and edges between them by index."""

    cards: tuple[Card, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float


def layout(state: GraphState) -> Layout:
    """Place every call of a graph, from left to right."""
    layers = _layers(state)
    groups = _groups(state, layers)
    group_of = {call.id: i for i, group in enumerate(groups) for call in group}
    edges = _edges(state, groups, group_of)
    columns: defaultdict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        columns[layers[group[0].id]].append(i)
    _order(columns, edges)
    cards = _place(groups, columns)
    width = max((card.x + card.width for card in cards), default=0) + MARGIN
    height = max((card.y + card.height for card in cards), default=0) + MARGIN
    return Layout(tuple(cards), tuple(edges), width, height)


def _layers(state: GraphState) -> dict[int, int]:
    """Each call one layer after the last call it reads from. Calls come in topological order."""
    layers: dict[int, int] = {}
    for call in state.calls.values():
        layers[call.id] = 1 + max((layers.get(source, -1) for source in state.sources(call)), default=-1)
    return layers


def _groups(state: GraphState, layers: dict[int, int]) -> list[tuple[CallView, ...]]:
    """Like calls of a stage together where there are many, every other call on its own."""
    alike: defaultdict[tuple[str, str, int], list[CallView]] = defaultdict(list)
    for call in state.calls.values():
        alike[call.function, call.kind, layers[call.id]].append(call)
    groups: list[tuple[CallView, ...]] = []
    for calls in alike.values():
        groups += [tuple(calls)] if len(calls) >= STACK_FROM else [(call,) for call in calls]
    return groups


def _edges(state: GraphState, groups: list[tuple[CallView, ...]], group_of: dict[int, int]) -> list[Edge]:
    found: defaultdict[tuple[int, int], dict[int, str]] = defaultdict(dict)
    for i_target, group in enumerate(groups):
        for call in group:
            for _, variable in call.inputs:
                view = state.variables.get(variable)
                if view is not None and view.producer in group_of:
                    found[group_of[view.producer], i_target][view.id] = view.name
    edges = []
    for (source, target), names in found.items():
        distinct = list(dict.fromkeys(names.values()))
        label = ", ".join(distinct[:2]) + (", ..." if len(distinct) > 2 else "")
        winners = [state.winner(call) for call in groups[target]]
        edges.append(Edge(source, target, label, len(names), None not in winners and not names.keys() & set(winners)))
    return edges


def _order(columns: dict[int, list[int]], edges: list[Edge]) -> None:
    """Sort each column by the mean position of its neighbours, forwards and backwards in turn."""
    before: defaultdict[int, list[int]] = defaultdict(list)
    after: defaultdict[int, list[int]] = defaultdict(list)
    for edge in edges:
        before[edge.target].append(edge.source)
        after[edge.source].append(edge.target)
    for sweep in range(SWEEPS):
        neighbours = after if sweep % 2 else before
        place = {card: i for column in columns.values() for i, card in enumerate(column)}
        for layer in sorted(columns, reverse=bool(sweep % 2)):
            columns[layer].sort(
                key=lambda card: (
                    sum(place[n] for n in neighbours[card]) / len(neighbours[card]) if neighbours[card] else place[card],
                    card,
                )
            )
            place.update({card: i for i, card in enumerate(columns[layer])})


def _place(groups: list[tuple[CallView, ...]], columns: dict[int, list[int]]) -> list[Card]:
    sizes = [
        (SMALL_WIDTH, SMALL_HEIGHT) if group[0].kind in ("join", "first") and len(group) == 1 else (CARD_WIDTH, CARD_HEIGHT)
        for group in groups
    ]
    heights = {layer: sum(sizes[i][1] for i in column) + GAP_Y * (len(column) - 1) for layer, column in columns.items()}
    tallest = max(heights.values(), default=0)
    cards: dict[int, Card] = {}
    x = float(MARGIN)
    for layer in sorted(columns):
        width = max(sizes[i][0] for i in columns[layer])
        y = MARGIN + (tallest - heights[layer]) / 2
        for i in columns[layer]:
            cards[i] = Card(groups[i], x + (width - sizes[i][0]) / 2, y, *sizes[i])
            y += sizes[i][1] + GAP_Y
        x += width + GAP_X
    return [cards[i] for i in range(len(groups))]
