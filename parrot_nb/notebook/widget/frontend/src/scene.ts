/** The canvas: items at their places, edges between them. Patches what changed and is in sight, once per frame. */

import { Card } from "./card";
import type { Camera } from "./camera";
import { button, h, setText, svg } from "./dom";
import { type Edge, type Item, MINI, cardKey, edgesOf, itemsOf, openHead, placeInside, stackKey } from "./items";
import { type Box, type Layout, layout } from "./layout";
import type { Call, Store } from "./store";

/** So many edges may flow at once; more would be a flicker, and cost frames. */
const MOST_FLOWING = 24;
const MANY = 60;
/** Below this scale nobody can read a value, so none is written. */
export const FAR = 0.5;

interface Drawn {
  card: Card;
  box: Box;
}

interface DrawnEdge {
  edge: Edge;
  line: SVGElement;
  flow: SVGElement;
  tip: SVGElement;
  label: SVGElement | null;
}

export class Scene {
  readonly stage = h("div", { class: "pg-stage" });
  readonly opened = new Set<string>();
  /** Whether cards that nobody looks for are faded. */
  faded = false;
  items: Item[] = [];
  plan: Layout = { places: new Map(), paths: new Map(), groups: [], width: 0, height: 0 };
  /** Cards by key, of open stacks too; in the order in which one goes through them. */
  readonly drawn = new Map<string, Drawn>();
  private readonly edges: DrawnEdge[] = [];
  private readonly heads = new Map<string, { text: HTMLElement; calls: Call[] }>();
  private readonly lines = svg("svg", { class: "pg-lines", "aria-hidden": "true" });
  private readonly keysOf = new Map<number, string[]>();
  private readonly dirty = new Set<string>();

  constructor(
    private readonly store: Store,
    private readonly camera: () => Camera,
    private readonly toggle: (stack: string) => void,
  ) {}

  /** Draws everything anew: the structure, or what is laid open, has changed. */
  rebuild(): void {
    const cards = new Map([...this.drawn].map(([key, { card }]) => [key, card]));
    this.items = itemsOf(this.store, this.opened);
    const edges = edgesOf(this.store, this.items);
    this.plan = layout(this.items, edges, this.store.groups);
    for (const part of [this.drawn, this.keysOf, this.heads, this.dirty]) part.clear();
    const content: Element[] = [this.lines];
    for (const box of this.plan.groups) content.push(place(h("div", { class: "pg-group" }, h("span", {}, box.label)), box));
    for (const item of this.items) {
      const box = this.plan.places.get(item.key)!;
      if (item.shape === "open") content.push(...this.openStack(item, box, cards));
      else content.push(this.put(cards, item.key, item.calls, item.shape, box));
    }
    this.stage.replaceChildren(...content);
    this.stage.classList.toggle("pg-many", this.drawn.size > MANY);
    this.drawEdges(edges);
    this.stage.style.width = `${this.plan.width}px`;
    this.stage.style.height = `${this.plan.height}px`;
    for (const key of this.drawn.keys()) this.dirty.add(key);
    this.patchAll();
  }

  private put(known: Map<string, Card>, key: string, calls: Call[], form: Item["shape"] | "mini", box: Box): HTMLElement {
    // A card holds its calls by reference, and a restructured store has new ones: only its element may live on.
    const card = new Card(key, calls, form);
    if (document.activeElement && known.get(key)?.element === document.activeElement) queueMicrotask(() => card.element.focus());
    this.drawn.set(key, { card, box });
    for (const call of calls) this.keysOf.set(call.id, [...(this.keysOf.get(call.id) ?? []), key]);
    return place(card.element, box);
  }

  private openStack(item: Item, box: Box, known: Map<string, Card>): HTMLElement[] {
    const text = h("span", { class: "pg-open-text" });
    const fold = button("fold", `Stack the calls of ${item.calls[0]!.name}`, () => this.toggle(item.calls[0]!.stack));
    const head = h("div", { class: "pg-open-head" }, text, fold);
    head.style.setProperty("--pg-head", `${openHead(item.calls.length)}px`);
    const frame = place(h("div", { class: "pg-open" }, head), box);
    this.heads.set(item.key, { text, calls: item.calls });
    const cards = item.calls.map((call, i) => {
      const { x, y } = placeInside(item, i);
      const inside = { x: box.x + x, y: box.y + y, width: MINI.width, height: MINI.height };
      return this.put(known, cardKey(call), [call], "mini", inside);
    });
    return [frame, ...cards];
  }

  private drawEdges(edges: Edge[]): void {
    this.edges.length = 0;
    this.lines.replaceChildren();
    const named = new Set<string>();
    for (const edge of edges) {
      const { d, tip, x, y } = this.plan.paths.get(edge.key)!;
      const line = svg("path", { class: "pg-line", d });
      const flow = svg("path", { class: "pg-flow", d });
      const head = svg("path", { class: "pg-tip", d: tip });
      const hit = svg("path", { class: "pg-hit", d, "data-edge": edge.key });
      const words = labelOf(edge);
      const said = `${edge.source}>${words}`; // one variable on several ways is named once
      const label = edges.length <= MANY && !named.has(said) ? svg("text", { class: "pg-label", x, y }) : null;
      if (label) label.textContent = words;
      named.add(said);
      this.lines.append(line, flow, head, ...(label ? [label] : []), hit);
      this.edges.push({ edge, line, flow, tip: head, label });
    }
  }

  edge(key: string): Edge | undefined {
    return this.edges.find(({ edge }) => edge.key === key)?.edge;
  }

  /** Whether all races that an edge leads to were won by others. */
  isLost(edge: Edge): boolean {
    const races = this.items.find(({ key }) => key === edge.target)?.calls ?? [];
    const winners = races.map((race) => this.store.winner(race));
    return winners.length > 0 && winners.every((winner) => winner && !edge.variables.includes(winner));
  }

  /** Where a call is on the canvas, if only as one of a stack. */
  keyOf(call: Call): string {
    return this.drawn.has(cardKey(call)) ? cardKey(call) : stackKey(call.stack);
  }

  mark(changed: Iterable<Call>): void {
    for (const call of changed) for (const key of this.keysOf.get(call.id) ?? []) this.dirty.add(key);
  }

  /** Patches what is marked and in sight; the rest stays marked until it is. */
  patch(): void {
    if (!this.dirty.size) return;
    const camera = this.camera();
    for (const key of this.dirty) {
      const drawn = this.drawn.get(key);
      if (drawn && !camera.sees(drawn.box)) continue;
      drawn?.card.patch(this.store);
      this.dirty.delete(key);
    }
    this.patchHeads();
    this.patchEdges();
  }

  private patchAll(): void {
    for (const key of this.dirty) this.drawn.get(key)?.card.patch(this.store);
    this.dirty.clear();
    this.patchHeads();
    this.patchEdges();
  }

  private patchHeads(): void {
    for (const { text, calls } of this.heads.values()) {
      const counts = this.store.counts(calls);
      setText(text, `${calls[0]!.name} ×${counts.all} · ${counts.done} done${counts.failed ? ` · ${counts.failed} failed` : ""}`);
    }
  }

  private patchEdges(): void {
    let flowing = 0;
    for (const { edge, line, flow, tip } of this.edges) {
      const states = new Set(edge.variables.map((variable) => variable.state));
      const state = states.has("running") ? "running" : states.has("failed") ? "failed" : states.has("pending") ? "pending" : "done";
      if (line.getAttribute("data-state") !== state) for (const part of [line, tip, flow]) part.setAttribute("data-state", state);
      const flows = state === "running" && flowing < MOST_FLOWING;
      flowing += Number(flows);
      flow.classList.toggle("pg-on", flows);
      const lost = this.isLost(edge);
      for (const part of [line, tip]) part.classList.toggle("pg-lost", lost);
    }
  }
}

function labelOf({ variables }: Edge): string {
  const names = [...new Set(variables.map((variable) => variable.name))];
  const name = names[0]!.length > 12 ? `${names[0]!.slice(0, 11)}…` : names[0]!;
  return variables.length > 1 ? `${name} ×${variables.length}` : name;
}

function place(element: HTMLElement, box: Box): HTMLElement {
  element.style.transform = `translate(${box.x}px,${box.y}px)`;
  element.style.width = `${box.width}px`;
  element.style.height = `${box.height}px`;
  return element;
}
