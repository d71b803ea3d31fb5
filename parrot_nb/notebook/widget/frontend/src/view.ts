/** The whole of it: canvas, tools, summary, tooltip and panel; keyboard and mouse. */

import { Camera } from "./camera";
import { button, h, setText } from "./dom";
import { Finder } from "./finder";
import { cardKey } from "./items";
import { MARGIN } from "./layout";
import { Minimap } from "./minimap";
import { type Direction, neighbour } from "./moving";
import { type Details, Panel } from "./panel";
import { FAR, Scene } from "./scene";
import { type Call, type Live, type Store, type Structure, isFinal, wordOf } from "./store";
import { Tooltip } from "./tooltip";

const LEAST_HEIGHT = 132;
const MOST_HEIGHT = 540;
const PANEL_HEIGHT = 460;
const BELOW_WIDTH = 760; // pixels of the whole under which the panel stands below the graph
const BELOW_HEIGHT = 340; // of the panel there
const SPOKEN_EVERY_MS = 2500; // a screen reader cannot say more
const DETAILS_EVERY_MS = 300;
const TRACK_EVERY_MS = 400; // a view that moves more often cannot be read
const READABLE = 10 / 11; // the smallest letters have 11 pixels; the canvas does not shrink them below 10 by itself, it pans instead

export type Say = (message: Record<string, unknown>) => void;

const ARROWS: Record<string, Direction> = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

const ZOOMS: Record<string, number> = { "+": 1.3, "=": 1.3, "-": 1 / 1.3 };

export class View {
  readonly element = h("div", { class: "pg mathjax_ignore tex2jax_ignore", role: "group", "aria-label": "Graph of calls" });
  private readonly frame = h("div", { class: "pg-frame" });
  private readonly summary = h("span", { class: "pg-summary", "aria-hidden": "true" });
  private readonly spoken = h("span", { class: "pg-unseen", "aria-live": "polite", role: "status" });
  private readonly cancelAll = button("stop", "Cancel all calls of this graph", () => this.say({ type: "cancel_all" }), "Cancel all");
  private readonly scene: Scene;
  private readonly camera: Camera;
  private readonly panel: Panel<Call>;
  private readonly tooltip: Tooltip;
  private readonly finder: Finder;
  private readonly minimap: Minimap;
  private readonly resized: ResizeObserver;
  private current = "";
  private frameAsked = 0;
  private spokenMs = 0;
  private speech = 0;
  private askedMs = 0;
  private asking = 0;
  private trackedMs = 0;

  constructor(
    private readonly store: Store,
    private readonly say: Say,
  ) {
    this.scene = new Scene(store, () => this.camera, (stack) => this.toggle(stack));
    this.camera = new Camera(this.frame, this.scene.stage, () => this.looked());
    this.panel = new Panel<Call>(store, {
      close: () => this.closePanel(),
      cancel: (call) => say({ type: "cancel", call: call.id }),
      show: (call) => this.show(call),
    });
    this.tooltip = new Tooltip(this.frame, this.scene);
    this.finder = new Finder(store, this.scene, (call) => this.show(call));
    this.minimap = new Minimap(this.scene, () => this.camera);
    const tools = h(
      "div",
      { class: "pg-tools", role: "toolbar", "aria-label": "View" },
      this.finder.element,
      this.cancelAll,
      button("minus", "Zoom out", () => this.camera.zoom(1 / 1.3)),
      button("plus", "Zoom in", () => this.camera.zoom(1.3)),
      button("fit", "Fit the whole graph", () => this.fit(true)),
    );
    this.frame.append(this.scene.stage, this.minimap.element, this.tooltip.element);
    this.element.append(
      h("div", { class: "pg-main" }, this.frame, this.panel.element),
      h("div", { class: "pg-foot" }, this.summary, this.spoken, tools),
    );
    this.frame.addEventListener("click", (event) => this.choose(nodeKey(event.target)));
    this.frame.addEventListener("focusin", (event) => this.focused(nodeKey(event.target)));
    // Jupyter's own shortcuts must not act while keys are meant for us; it asks the element that has the focus first.
    this.element.addEventListener("focusin", ({ target }) => (target as Element).setAttribute("data-lm-suppress-shortcuts", "true"));
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.resized = new ResizeObserver(() => {
      this.size();
      if (this.panel.call) this.stay();
      else if (this.camera.held) this.looked();
      else this.follow(false);
    });
    this.resized.observe(this.frame);
  }

  restructure(structure: Structure): void {
    this.store.restructure(structure);
    const call = this.panel.call && this.store.calls.get(this.panel.call.id);
    if (call) this.panel.open(call);
    else if (this.panel.call) this.panel.close();
    this.draw();
  }

  apply(live: Live): void {
    const changed = this.store.apply(live);
    this.scene.mark(changed);
    if (this.panel.call && changed.has(this.panel.call)) this.ask();
    this.later();
  }

  take(details: Details): void {
    this.panel.take(details);
  }

  dispose(): void {
    this.resized.disconnect();
    cancelAnimationFrame(this.frameAsked);
    this.minimap.dispose();
    for (const timer of [this.speech, this.asking]) clearTimeout(timer);
  }

  private draw(): void {
    this.scene.rebuild();
    if (this.panel.call) this.selected(this.scene.keyOf(this.panel.call));
    this.moveTo(this.scene.drawn.has(this.current) ? this.current : (this.scene.drawn.keys().next().value ?? ""));
    this.size();
    if (!this.camera.held) this.follow(false);
    this.later();
  }

  /** As high as the graph needs, within bounds. */
  private size(): void {
    const open = this.panel.call !== null;
    const fitting = open ? this.camera.scale : Math.min(1, this.frame.clientWidth / (this.scene.plan.width || 1));
    const scale = this.scene.opened.size ? 1 : Math.max(READABLE, fitting);
    const wanted = Math.min(MOST_HEIGHT, Math.max(LEAST_HEIGHT, this.scene.plan.height * scale));
    const below = open && this.element.clientWidth < BELOW_WIDTH;
    const main = this.frame.parentElement!;
    main.classList.toggle("pg-below", below);
    main.style.height = `${!open ? wanted : below ? wanted + BELOW_HEIGHT : Math.max(PANEL_HEIGHT, wanted)}px`;
  }

  /** What is in sight stays where it is while the panel takes its room; the call in it moves only as far as it must. */
  private stay(): void {
    this.looked();
    this.reveal();
  }

  /** The whole graph as far as it can be read, and the call in the panel whatever else must go out of sight. */
  private follow(calm: boolean): void {
    this.camera.fit(this.scene.plan.width, this.scene.plan.height, this.scene.opened.size ? 0 : READABLE, calm);
    this.reveal();
  }

  private reveal(): void {
    const call = this.panel.call ?? this.wanted();
    const box = call ? this.scene.drawn.get(this.scene.keyOf(call))?.box : this.scene.drawn.values().next().value?.box;
    if (box && (this.panel.call || !this.scene.opened.size)) this.camera.reveal(box);
  }

  /** The first call that runs, else the first that failed. */
  private wanted(): Call | undefined {
    let failed: Call | undefined;
    for (const call of this.store.calls.values()) {
      if (call.state === "running") return call;
      if (call.state === "failed") failed ??= call;
    }
    return failed;
  }

  /** Keeps what runs in sight, and what failed once all has ended, until somebody takes hold of the view. */
  private track(): void {
    if (this.camera.held || this.panel.call || this.scene.opened.size || performance.now() < this.trackedMs + TRACK_EVERY_MS) return;
    const wanted = this.wanted();
    const box = wanted && this.scene.drawn.get(this.scene.keyOf(wanted))?.box;
    if (!box) return;
    this.trackedMs = performance.now();
    this.camera.reveal(box);
  }

  private fit(calm: boolean): void {
    this.camera.held = false;
    this.camera.fit(this.scene.plan.width, this.scene.plan.height, 0, calm);
  }

  private looked(): void {
    this.camera.measure();
    this.scene.stage.classList.toggle("pg-far", this.camera.scale < FAR);
    const { x, scale } = this.camera;
    this.frame.classList.toggle("pg-more-left", x + MARGIN * scale < 0);
    this.frame.classList.toggle("pg-more-right", x + (this.scene.plan.width - MARGIN) * scale > this.frame.clientWidth);
    this.tooltip.hide();
    this.later();
  }

  /** At most one patch per frame of the screen, however fast messages come. */
  private later(): void {
    this.frameAsked ||= requestAnimationFrame(() => {
      this.frameAsked = 0;
      this.scene.patch();
      this.track();
      this.finder.fade();
      this.minimap.draw();
      this.sum();
    });
  }

  private sum(): void {
    const counts = this.store.counts(this.store.calls.values());
    const settled = this.store.settled;
    let tokens = 0;
    for (const variable of this.store.variables.values()) tokens += variable.tokens;
    const words = [`${counts.done} of ${counts.all} call${counts.all === 1 ? "" : "s"} done`];
    for (const state of ["running", "failed", "cancelled", "unrun"] as const) if (counts[state]) words.push(`${counts[state]} ${wordOf(state)}`);
    const spoken = words.join(", ");
    if (tokens) words.push(`${tokens.toLocaleString("en")} tokens`);
    if (this.store.loading) words.push("loading the model");
    words.push(...this.store.notes);
    setText(this.summary, words.join(" · "));
    this.element.classList.toggle("pg-ended", settled);
    this.cancelAll.hidden = settled;
    if (this.spoken.textContent === spoken || this.speech) return;
    const wait = settled ? 0 : Math.max(0, this.spokenMs + SPOKEN_EVERY_MS - performance.now());
    this.speech = window.setTimeout(() => {
      this.speech = 0;
      this.spokenMs = performance.now();
      setText(this.spoken, spoken);
      this.later();
    }, wait);
  }

  private toggle(stack: string): void {
    const calls = this.store.stacks.get(stack) ?? [];
    if (!this.scene.opened.delete(stack)) this.scene.opened.add(stack);
    this.current = this.scene.opened.has(stack) && calls[0] ? cardKey(calls[0]) : `stack ${stack}`;
    this.camera.held = false;
    this.draw();
    this.follow(false);
    this.scene.drawn.get(this.current)?.card.element.focus({ preventScroll: true });
  }

  private choose(key: string | null): void {
    if (!key) return;
    const item = this.scene.items.find((found) => found.key === key);
    if (item?.shape === "stack") return this.toggle(item.calls[0]!.stack);
    const call = this.store.calls.get(Number(key.slice("call ".length)));
    if (call) this.open(call, key);
  }

  private open(call: Call, key: string): void {
    const was = this.panel.call !== null;
    this.panel.open(call);
    this.selected(key);
    if (!was) this.size();
    requestAnimationFrame(() => this.stay());
    this.askedMs = 0;
    this.ask();
  }

  /** Opens the panel of a call, wherever it is. */
  private show(call: Call): void {
    this.open(call, this.scene.keyOf(call));
  }

  private closePanel(): void {
    const call = this.panel.call;
    this.panel.close();
    this.selected("");
    this.size();
    if (call) this.scene.drawn.get(this.scene.keyOf(call))?.card.element.focus({ preventScroll: true });
  }

  private selected(key: string): void {
    for (const { card } of this.scene.drawn.values()) card.element.classList.toggle("pg-selected", card.key === key);
  }

  /** Asks for the details of the call in the panel; a running call's not more often than one can read. */
  private ask(): void {
    if (this.asking) return;
    const wait = Math.max(0, this.askedMs + DETAILS_EVERY_MS - performance.now());
    this.asking = window.setTimeout(() => {
      this.asking = 0;
      this.askedMs = performance.now();
      if (this.panel.call) this.say({ type: "details", call: this.panel.call.id });
      if (this.panel.call && !isFinal(this.panel.call.state)) this.ask(); // its times run on
    }, wait);
  }

  private key(event: KeyboardEvent): void {
    const key = nodeKey(event.target);
    const arrow = ARROWS[event.key];
    const inside = key?.startsWith("call ") ? this.store.calls.get(Number(key.slice("call ".length)))?.stack : undefined;
    if (event.key === "Escape" && this.panel.call) this.closePanel();
    else if (event.key === "Escape" && inside && this.scene.opened.has(inside)) this.toggle(inside);
    else if (key && arrow) this.step(key, arrow);
    else if (key && ZOOMS[event.key] && !event.ctrlKey && !event.metaKey) this.camera.zoom(ZOOMS[event.key]!);
    else if (key && event.key === "0" && !event.ctrlKey && !event.metaKey) this.fit(true);
    else if (key && (event.key === "Enter" || event.key === " ")) this.choose(key);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private step(key: string, direction: Direction): void {
    const next = neighbour(this.scene, this.store, key, direction);
    if (next) this.scene.drawn.get(next)!.card.element.focus({ preventScroll: true });
  }

  private focused(key: string | null): void {
    const drawn = key === null ? undefined : this.scene.drawn.get(key);
    if (!drawn) return;
    this.moveTo(key!);
    this.camera.reveal(drawn.box);
  }

  /** The one node that the tab key reaches. */
  private moveTo(key: string): void {
    this.scene.drawn.get(this.current)?.card.element.setAttribute("tabindex", "-1");
    this.current = key;
    this.scene.drawn.get(key)?.card.element.setAttribute("tabindex", "0");
  }
}

function nodeKey(target: EventTarget | null): string | null {
  return target instanceof Element ? (target.closest<HTMLElement>(".pg-node")?.dataset.key ?? null) : null;
}
