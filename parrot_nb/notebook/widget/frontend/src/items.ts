/** What is on the canvas: calls on their own, stacks of like calls, stacks laid open; and the edges between them. */

import { type Call, type Kind, STACK_FROM, type State, type Store, type Variable } from "./store";

export interface Item {
  key: string;
  shape: "card" | "pill" | "stack" | "open";
  calls: Call[];
  width: number;
  height: number;
  /** Of an open stack: how many cards stand side by side. */
  columns: number;
}

/** Variables on their way from one item to another. */
export interface Edge {
  key: string;
  source: string;
  target: string;
  variables: Variable[];
}

export const CARD = { width: 236, height: 108 };
export const PILL = { width: 124, height: 38 };
export const MINI = { width: 184, height: 64, gap: 8 };
export const OPEN_PAD = 12;

export const cardKey = (call: Call): string => `call ${call.id}`;
export const stackKey = (stack: string): string => `stack ${stack}`;

/** Every call in one item. `opened` holds the stacks that are laid open. */
export function itemsOf(store: Store, opened: ReadonlySet<string>): Item[] {
  const items: Item[] = [];
  for (const [stack, calls] of store.stacks) {
    if (calls.length < STACK_FROM) {
      items.push(...calls.map((call) => ({ key: cardKey(call), calls: [call], columns: 1, ...single(call.kind) })));
    } else if (opened.has(stack)) {
      items.push({ key: stackKey(stack), shape: "open", calls, ...openSize(calls.length) });
    } else {
      items.push({ key: stackKey(stack), shape: "stack", calls, columns: 1, ...CARD });
    }
  }
  return items;
}

export function edgesOf(store: Store, items: Item[]): Edge[] {
  const itemOf = new Map<number, string>();
  for (const item of items) for (const call of item.calls) itemOf.set(call.id, item.key);
  const found = new Map<string, Edge & { seen: Set<number> }>();
  for (const call of store.calls.values()) {
    const target = itemOf.get(call.id);
    for (const [, id] of call.inputs) {
      const variable = store.variables.get(id);
      const source = variable?.producer == null ? undefined : itemOf.get(variable.producer);
      if (!variable || !source || !target || source === target) continue;
      const key = `${source}>${target}`;
      const edge = found.get(key) ?? { key, source, target, variables: [], seen: new Set() };
      if (!edge.seen.has(id)) edge.variables.push(variable);
      edge.seen.add(id);
      found.set(key, edge);
    }
  }
  return [...found.values()];
}

/** One state for several calls: the one that asks most for attention. */
export function jointState(calls: Call[]): State {
  const states = new Set(calls.map((call) => call.state));
  for (const state of ["failed", "running", "cancelled", "unrun"] as const) if (states.has(state)) return state;
  return states.has("done") ? (states.size === 1 ? "done" : "running") : "pending";
}

function single(kind: Kind): { shape: "card" | "pill"; width: number; height: number } {
  return kind === "join" || kind === "first" ? { shape: "pill", ...PILL } : { shape: "card", ...CARD };
}

/** The height of an open stack's title: the more cards, the farther away it is to be read from. */
export const openHead = (count: number): number => Math.round(Math.min(150, Math.max(42, 42 * Math.sqrt(count / 40))));

/** A block of cards that is about twice as wide as high. */
function openSize(count: number): { columns: number; width: number; height: number } {
  const [w, h] = [MINI.width + MINI.gap, MINI.height + MINI.gap];
  const columns = Math.max(2, Math.min(count, Math.round(Math.sqrt((count * h * 1.9) / w))));
  const rows = Math.ceil(count / columns);
  return { columns, width: columns * w - MINI.gap + 2 * OPEN_PAD, height: openHead(count) + rows * h - MINI.gap + OPEN_PAD };
}

/** Where a card of an open stack stands, from the stack's corner. */
export function placeInside(item: Item, index: number): { x: number; y: number } {
  return {
    x: OPEN_PAD + (index % item.columns) * (MINI.width + MINI.gap),
    y: openHead(item.calls.length) + Math.floor(index / item.columns) * (MINI.height + MINI.gap),
  };
}
