/** Where everything goes, by dagre, from left to right. Runs when the graph's structure changes, never while text streams. */

import { Graph, layout as placeAll } from "@dagrejs/dagre";
import type { Edge, Item } from "./items";
import type { Group } from "./store";

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Layout {
  /** By key of the item: its top left corner and size. */
  places: Map<string, Box>;
  /** By key of the edge: the path it takes, and where its label stands. */
  paths: Map<string, { d: string; tip: string; x: number; y: number }>;
  groups: (Box & { label: string })[];
  width: number;
  height: number;
}

export const MARGIN = 20;
const GROUP_PAD = 14;
const GROUP_HEAD = 18;
const TIP = 7; // length of an arrow's head
const STACK_DEPTH = 9; // how far the cards behind a stack's first stand out
/** Beyond this dagre's better ranking takes longer than anybody wants to wait. */
const MANY = 120;

export function layout(items: Item[], edges: Edge[], groups: Group[]): Layout {
  const graph = new Graph({ compound: true });
  const ranker = items.length > MANY ? "longest-path" : "network-simplex";
  graph.setGraph({ rankdir: "LR", nodesep: 20, ranksep: 96, edgesep: 14, marginx: MARGIN, marginy: MARGIN, ranker });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const { key, width, height } of items) graph.setNode(key, { width, height });
  for (const { source, target } of edges) graph.setEdge(source, target, { width: 0, height: 0 });
  const boxed = boxedGroups(items, groups);
  boxed.forEach(({ keys }, i) => {
    graph.setNode(`group ${i}`, {});
    for (const key of keys) graph.setParent(key, `group ${i}`);
  });
  placeAll(graph);
  const places = new Map(items.map(({ key }) => [key, corner(graph.node(key))]));
  inOrder(items, edges, boxed, places);
  const boxes = boxed.map(({ label, keys }) => ({ label, ...around(keys.map((key) => places.get(key)!)) }));
  const shift = Math.max(0, ...boxes.map((box) => MARGIN / 2 - box.y));
  for (const box of [...places.values(), ...boxes]) box.y += shift;
  const stacks = new Set(items.filter(({ shape }) => shape === "stack").map(({ key }) => key));
  const paths = new Map<string, { d: string; tip: string; x: number; y: number }>();
  for (const edge of edges) {
    const bends = graph.edge(edge.source, edge.target)?.points ?? [];
    const ends = new Set([edge.source, edge.target]);
    const others = items.filter(({ key }) => !ends.has(key)).map(({ key }) => places.get(key)!);
    const source = places.get(edge.source)!;
    const behind = stacks.has(edge.source) ? STACK_DEPTH : 0;
    const start = { x: source.x + source.width + behind, y: source.y + source.height / 2 };
    paths.set(edge.key, route(start, places.get(edge.target)!, bends.map(({ x, y }: Point) => ({ x, y: y + shift })), others));
  }
  const all = [...places.values(), ...boxes];
  return {
    places,
    paths,
    groups: boxes,
    width: Math.max(0, ...all.map((box) => box.x + box.width)) + MARGIN,
    height: Math.max(0, ...all.map((box) => box.y + box.height)) + MARGIN,
  };
}

/** Items that stand above each other and have the same neighbours may change places: they stand in order of their calls. */
function inOrder(items: Item[], edges: Edge[], boxed: { keys: string[] }[], places: Map<string, Box>): void {
  const about = new Map(items.map(({ key }) => [key, [] as string[]]));
  for (const { source, target } of edges) {
    about.get(source)!.push(`>${target}`);
    about.get(target)!.push(`<${source}`);
  }
  boxed.forEach(({ keys }, i) => keys.forEach((key) => about.get(key)!.push(`group ${i}`)));
  const alike = new Map<string, Box[]>();
  for (const { key } of items) {
    const box = places.get(key)!;
    const kind = [box.x.toFixed(), box.width, box.height, ...about.get(key)!.sort()].join(" ");
    alike.set(kind, [...(alike.get(kind) ?? []), box]);
  }
  for (const boxes of alike.values()) {
    const heights = boxes.map(({ y }) => y).sort((a, b) => a - b);
    boxes.forEach((box, i) => (box.y = heights[i]!));
  }
}

/** Groups whose calls are several items or all of a stack, each item in the first group that has it. */
function boxedGroups(items: Item[], groups: Group[]): { label: string; keys: string[] }[] {
  const keyOf = new Map<number, string>();
  for (const item of items) for (const call of item.calls) keyOf.set(call.id, item.key);
  const stacks = new Map(items.filter(({ shape }) => shape === "stack").map((item) => [item.key, item.calls.length]));
  const taken = new Set<string>();
  const found = [];
  for (const { calls } of groups) {
    const keys = [...new Set(calls.map((id) => keyOf.get(id)))].filter((key) => key !== undefined && !taken.has(key)) as string[];
    if (keys.length < 2 && stacks.get(keys[0] ?? "") !== calls.length) continue;
    for (const key of keys) taken.add(key);
    found.push({ label: `task group of ${calls.length}`, keys });
  }
  return found;
}

function corner({ x, y, width, height }: Box): Box {
  return { x: x - width / 2, y: y - height / 2, width, height };
}

function around(boxes: Box[]): Box {
  const x = Math.min(...boxes.map((b) => b.x)) - GROUP_PAD;
  const y = Math.min(...boxes.map((b) => b.y)) - GROUP_PAD - GROUP_HEAD;
  const right = Math.max(...boxes.map((b) => b.x + b.width)) + GROUP_PAD;
  const bottom = Math.max(...boxes.map((b) => b.y + b.height)) + GROUP_PAD;
  return { x, y, width: right - x, height: bottom - y };
}

interface Point {
  x: number;
  y: number;
}

/** A smooth way from a box's right side to another's left side: in one swing, or through the bends that dagre found where
 * something stands in between. */
function route(start: Point, target: Box, bends: Point[], others: Box[]) {
  const end = { x: target.x - TIP, y: target.y + target.height / 2 };
  const inner = bends.slice(1, -1).filter(({ x }) => x > start.x + 8 && x < end.x - 8);
  const points = clear(start, end, others) ? [start, end] : [start, ...inner, end];
  let d = `M${at(start)}`;
  for (let i = 1; i < points.length; i++) {
    const [from, to] = [points[i - 1]!, points[i]!];
    const reach = (to.x - from.x) / 2;
    d += ` C${(from.x + reach).toFixed(1)},${from.y.toFixed(1)} ${(to.x - reach).toFixed(1)},${to.y.toFixed(1)} ${at(to)}`;
  }
  const tip = `M${(end.x + TIP).toFixed(1)},${end.y.toFixed(1)} l${-TIP},${-TIP / 2} l1.5,${TIP / 2} l-1.5,${TIP / 2} z`;
  // The label stands on the side that the line turns away from.
  return { d, tip, x: start.x + 10, y: start.y + (end.y < start.y - 12 ? 15 : -7) };
}

/** Whether one swing from start to end touches no box. */
function clear(start: Point, end: Point, boxes: Box[]): boolean {
  const near = boxes.filter((box) => box.x < end.x && box.x + box.width > start.x);
  for (let i = 1; near.length && i < 16; i++) {
    const t = i / 16;
    const x = start.x + (end.x - start.x) * (1.5 * t * (1 - t) + t ** 3);
    const y = start.y + (end.y - start.y) * t * t * (3 - 2 * t);
    if (near.some((box) => x > box.x - 6 && x < box.x + box.width + 6 && y > box.y - 6 && y < box.y + box.height + 6)) return false;
  }
  return true;
}

const at = ({ x, y }: Point): string => `${x.toFixed(1)},${y.toFixed(1)}`;
