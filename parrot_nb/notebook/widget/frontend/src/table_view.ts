/** The whole of a table: scores, filters, rows and panel; keyboard and mouse. */

import { button, h, icon, setText } from "./dom";
import { type Details, Panel, type Subject } from "./panel";
import { type State, isFinal, wordOf } from "./store";
import { File } from "./table_file";
import { ROW_HEIGHT, Scroller, isNumber } from "./table_rows";
import type { Column, Head, LiveRows, Row, Table } from "./table_store";

export type Say = (message: Record<string, unknown>) => void;

export interface RowDetails extends Details {
  state: State;
}

export interface FilePart {
  start: number;
  text: string;
  next: number | null;
}

interface RowSubject extends Subject {
  position: number;
  side: number;
}

const MOST_ROWS_HIGH = 13;
const PANEL_HEIGHT = 430;
const WINDOW_EVERY_MS = 70;
const DETAILS_EVERY_MS = 400;
const TYPED_MS = 250; // of rest, after which the filter's text is asked for
const SPOKEN_EVERY_MS = 2500;
const CHIPS: State[] = ["done", "running", "pending", "failed", "cancelled"];
let made = 0;

/** A small table in full: its first row and first column name the others. */
function measured([headers = [], ...rows]: string[][]): HTMLElement {
  const head = h("tr", {}, ...headers.map((text) => h("th", { scope: "col", dir: "auto" }, text)));
  const body = rows.map(([name = "", ...cells]) => h("tr", {}, h("th", { scope: "row", dir: "auto" }, name), ...cells.map((text) => h("td", {}, text))));
  return h("div", { class: "pt-measures", tabindex: 0, role: "region", "aria-label": "Measures" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body)));
}

export class TableView {
  readonly element = h("div", { class: "pt mathjax_ignore tex2jax_ignore", role: "group" });
  private readonly scores = h("div", { class: "pt-scores" });
  private readonly chips = h("div", { class: "pt-chips", role: "group", "aria-label": "Show only rows that are" });
  private readonly head = h("div", { class: "pt-row pt-head", role: "row", "aria-rowindex": 1 });
  private readonly grid = h("div", { class: "pt-grid", role: "grid", tabindex: 0, "aria-readonly": "true" });
  private readonly empty = h("div", { class: "pt-empty", hidden: true });
  private readonly summary = h("span", { class: "pg-summary", "aria-hidden": "true" });
  private readonly spoken = h("span", { class: "pg-unseen", "aria-live": "polite", role: "status" });
  private readonly find = h("input", { class: "pg-find", type: "search", placeholder: "Filter rows", "aria-label": "Filter rows by text", spellcheck: false });
  private readonly failedFirst = button("failed", "Failed rows first", () => this.toggle("failed_first"), "Failed first");
  private readonly differing = button("unfold", "Only rows on which the functions differ", () => this.toggle("differing"), "Differences");
  private readonly cancelAll = button("stop", "Cancel all rows that have not ended", () => this.say({ type: "cancel_all" }), "Cancel all");
  private readonly download = button("save", "Download the rows shown as CSV", () => this.file.begin(), "CSV");
  private readonly file = new File(
    (start) => this.say({ type: "csv", start }),
    (waits) => this.download.classList.toggle("pt-busy", waits),
  );
  private readonly panel: Panel<RowSubject>;
  private readonly scroller: Scroller;
  private readonly resized: ResizeObserver;
  private readonly query = { sort: null as string | null, descending: false, states: [] as string[], text: "", failed_first: false, differing: false };
  private readonly id = `parrot-table-${made++}-${Date.now().toString(36)}`;
  private frameAsked = 0;
  private asked = "";
  private refilled = -1; // version whose missing rows were asked for
  private askedMs = 0;
  private asking = 0;
  private typing = 0;
  private detailing = 0;
  private speech = 0;
  private headTab = 0;

  constructor(
    private readonly table: Table,
    private readonly say: Say,
  ) {
    this.scroller = new Scroller(table, this.grid, this.head, this.id);
    this.panel = new Panel<RowSubject>(
      { outputs: (subject) => this.outputs(subject), causes: () => [] },
      { close: () => this.close(), cancel: ({ position, side }) => say({ type: "cancel", row: position, side }), show: () => undefined },
    );
    for (const toggle of [this.failedFirst, this.differing]) toggle.setAttribute("aria-pressed", "false");
    const tools = h("div", { class: "pg-tools", role: "toolbar", "aria-label": "Rows" }, this.differing, this.failedFirst, this.find, this.cancelAll, this.download);
    this.grid.append(this.head, this.scroller.body);
    this.element.append(
      this.scores,
      h("div", { class: "pt-bar" }, this.chips, tools),
      h("div", { class: "pt-main" }, h("div", { class: "pt-frame" }, this.grid, this.empty), this.panel.element),
      h("div", { class: "pg-foot" }, this.summary, this.spoken),
    );
    this.grid.addEventListener("scroll", () => this.later(), { passive: true });
    this.scroller.body.addEventListener("click", (event) => this.clicked(event.target as Element));
    this.head.addEventListener("click", (event) => this.sortBy((event.target as Element).closest<HTMLElement>("[data-key]")?.dataset.key));
    this.find.addEventListener("input", () => this.typed());
    // Jupyter's own shortcuts must not act while keys are meant for us; it asks the element that has the focus first.
    this.element.addEventListener("focusin", ({ target }) => (target as Element).setAttribute("data-lm-suppress-shortcuts", "true"));
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.resized = new ResizeObserver(() => this.later());
    this.resized.observe(this.grid);
  }

  restructure(head: Head): void {
    this.table.restructure(head);
    this.element.setAttribute("aria-label", `Table of ${head.sides.join(" and ")}`);
    this.grid.setAttribute("aria-label", `Rows of ${head.sides.join(" and ")}`);
    this.grid.setAttribute("aria-colcount", String(head.columns.length + 2));
    this.differing.hidden = head.sides.length < 2;
    this.scroller.rebuild();
    this.drawHead();
    this.later();
  }

  apply(live: LiveRows): void {
    this.table.apply(live);
    const call = this.panel.call;
    if (call && !isFinal(call.state)) this.detail();
    this.later();
  }

  take(details: RowDetails): void {
    const call = this.panel.call;
    if (!call || call.id !== details.id) return;
    if (call.state !== details.state) this.panel.open({ ...call, state: details.state, fixed: details.state !== "running" });
    this.panel.take(details);
    if (!isFinal(details.state)) this.detail();
  }

  takeFile({ start, text, next }: FilePart): void {
    this.file.take(start, text, next, `${this.table.sides.join("-").replace(/[^\p{L}\p{N}_-]+/gu, "_") || "rows"}.csv`);
  }

  dispose(): void {
    this.resized.disconnect();
    this.file.dispose();
    cancelAnimationFrame(this.frameAsked);
    for (const timer of [this.asking, this.typing, this.detailing, this.speech]) clearTimeout(timer);
  }

  // Drawing

  /** At most once per frame of the screen, however fast messages come. */
  private later(): void {
    this.frameAsked ||= requestAnimationFrame(() => {
      this.frameAsked = 0;
      this.draw();
    });
  }

  private draw(): void {
    const { table } = this;
    const rows = Math.min(MOST_ROWS_HIGH, Math.max(table.matching, table.total ? 3 : 2));
    const wanted = (rows + 1) * ROW_HEIGHT + (table.sides.length > 1 ? 16 : 0) + 14;
    this.grid.parentElement!.parentElement!.style.height = `${this.panel.call ? Math.max(PANEL_HEIGHT, wanted) : wanted}px`;
    this.grid.setAttribute("aria-rowcount", String(table.matching + 1));
    this.scroller.current = Math.min(this.scroller.current, Math.max(0, table.matching - 1));
    this.scroller.draw();
    this.drawEmpty();
    this.drawChips();
    this.drawScores();
    this.sum();
    this.askRows();
  }

  private drawHead(): void {
    const several = this.table.sides.length > 1;
    const columns: [string, string, string, boolean][] = [["row", "#", "", true], ["state", "state", "", false]];
    for (const column of this.table.columns) {
      const own = several && (column.role === "output" || column.role === "score");
      columns.push([column.key, column.name, own ? this.table.sides[column.side]! : "", isNumber(column)]);
    }
    const cells = columns.map(([key, name, side, right], i) => {
      const sorted = this.query.sort === key;
      const label = h("span", { class: "pt-name", dir: "auto" }, name);
      const classes = ["pt-cell", right && "pt-right", sorted && "pt-sorted"].filter(Boolean).join(" ");
      const title = `Sort by ${side ? `${side}: ` : ""}${name === "#" ? "row" : name}`;
      const cell = h("div", { class: classes, role: "columnheader", "data-key": key, tabindex: i === this.headTab ? 0 : -1, title, "aria-colindex": i + 1 });
      cell.setAttribute("aria-sort", sorted ? (this.query.descending ? "descending" : "ascending") : "none");
      if (several) cell.append(h("span", { class: "pt-side", dir: "auto" }, side || "\u00a0"));
      const arrow = h("span", { class: "pt-arrow", "aria-hidden": "true" }, sorted ? (this.query.descending ? "▼" : "▲") : "");
      cell.append(h("span", { class: "pt-title" }, label, arrow));
      return cell;
    });
    const focused = [...this.head.children].indexOf(document.activeElement!);
    this.head.replaceChildren(...cells);
    if (focused >= 0) (cells[focused] ?? cells[0])!.focus({ preventScroll: true });
  }

  private drawEmpty(): void {
    const { total, matching } = this.table;
    this.empty.hidden = matching > 0;
    if (matching > 0) return;
    if (!total) return setText(this.empty, this.table.settled ? "The table has no rows." : "No row yet.");
    if (this.empty.querySelector("button")) return;
    this.empty.replaceChildren("No row matches. ", button("close", "Show all rows", () => this.clear(), "Show all rows"));
  }

  private drawChips(): void {
    const shown = CHIPS.filter((state) => this.table.counts[state] || this.query.states.includes(state));
    const have = [...this.chips.children].map((chip) => (chip as HTMLElement).dataset.state);
    if (have.join() !== shown.join()) {
      const focused = (document.activeElement as HTMLElement | null)?.closest<HTMLElement>(".pt-chip")?.dataset.state;
      this.chips.replaceChildren(...shown.map((state) => this.chip(state)));
      if (focused) this.chips.querySelector<HTMLElement>(`[data-state="${focused}"]`)?.focus();
    }
    for (const chip of this.chips.querySelectorAll<HTMLElement>(".pt-chip")) {
      const state = chip.dataset.state as State;
      setText(chip.querySelector(".pt-count")!, (this.table.counts[state] ?? 0).toLocaleString("en"));
      chip.setAttribute("aria-pressed", String(this.query.states.includes(state)));
    }
    const failed = (this.table.counts.failed ?? 0) + (this.table.counts.cancelled ?? 0);
    this.failedFirst.hidden = !failed && !this.query.failed_first;
  }

  private chip(state: State): HTMLElement {
    const chip = h("button", { type: "button", class: "pt-chip", "data-state": state, title: `Show only rows that are ${wordOf(state)}` });
    chip.append(icon(state), h("b", { class: "pt-count" }), wordOf(state));
    chip.addEventListener("click", () => {
      const { states } = this.query;
      this.query.states = states.includes(state) ? states.filter((one) => one !== state) : [...states, state];
      this.requery();
    });
    return chip;
  }

  private drawScores(): void {
    const { scores, measures, total } = this.table;
    this.scores.hidden = !scores.length;
    const key = JSON.stringify([scores, measures, total]);
    if (this.scores.dataset.key === key) return;
    this.scores.dataset.key = key;
    this.scores.replaceChildren(
      ...scores.map(([name, rows, mean, interval]) => {
        const said = rows < total ? `${rows.toLocaleString("en")} of ${total.toLocaleString("en")} rows so far` : `${rows.toLocaleString("en")} row${rows === 1 ? "" : "s"}`;
        return h("div", { class: "pt-score" }, h("span", { dir: "auto" }, name), h("b", {}, mean), h("span", {}, [interval, said].filter(Boolean).join(" · ")));
      }),
      ...(measures.length ? [measured(measures)] : []),
    );
  }

  private sum(): void {
    const { total, matching, counts, settled } = this.table;
    const rows = (count: number) => `${count.toLocaleString("en")} row${count === 1 ? "" : "s"}`;
    const ended = (counts.done ?? 0) + (counts.failed ?? 0) + (counts.cancelled ?? 0);
    const words = [matching === total ? rows(total) : `${matching.toLocaleString("en")} of ${rows(total)}`];
    if (!settled) words.push(`${ended.toLocaleString("en")} ended`);
    setText(this.summary, words.join(" · "));
    this.cancelAll.hidden = settled;
    const spoken = [...words, counts.failed ? `${counts.failed} failed` : ""].filter(Boolean).join(", ");
    if (this.spoken.textContent === spoken || this.speech) return;
    this.speech = window.setTimeout(() => {
      this.speech = 0;
      setText(this.spoken, spoken);
      this.later();
    }, settled ? 0 : SPOKEN_EVERY_MS);
  }

  // Asking

  /** Asks for the rows in sight where they are others than before, or, once per version, where some are missing. */
  private askRows(): void {
    const [start, end] = this.scroller.sight();
    const isKnown = this.refilled === this.table.version || this.table.isFilled(start, end);
    if ((`${start} ${end}` === this.asked && isKnown) || end <= start || this.asking) return;
    const wait = Math.max(0, this.askedMs + WINDOW_EVERY_MS - performance.now());
    this.asking = window.setTimeout(() => {
      this.asking = 0;
      this.askedMs = performance.now();
      const [first, last] = this.scroller.sight();
      this.asked = `${first} ${last}`;
      if (!this.table.isFilled(first, last)) this.refilled = this.table.version;
      this.say({ type: "window", start: first, count: last - first });
      this.later();
    }, wait);
  }

  private requery(): void {
    this.drawHead();
    this.grid.scrollTop = 0;
    this.scroller.current = 0;
    this.failedFirst.setAttribute("aria-pressed", String(this.query.failed_first));
    this.differing.setAttribute("aria-pressed", String(this.query.differing));
    this.say({ type: "query", ...this.query });
    this.later();
  }

  private toggle(name: "failed_first" | "differing"): void {
    this.query[name] = !this.query[name];
    this.requery();
  }

  private typed(): void {
    clearTimeout(this.typing);
    this.typing = window.setTimeout(() => {
      const text = this.find.value.trim();
      if (text === this.query.text) return;
      this.query.text = text;
      this.requery();
    }, TYPED_MS);
  }

  private clear(): void {
    this.find.value = "";
    Object.assign(this.query, { states: [], text: "", differing: false });
    this.requery();
    this.grid.focus();
  }

  /** Ascending, descending, then the table's own order. */
  private sortBy(key: string | undefined): void {
    if (key === undefined) return;
    const { sort, descending } = this.query;
    if (sort !== key) Object.assign(this.query, { sort: key, descending: false });
    else if (!descending) this.query.descending = true;
    else Object.assign(this.query, { sort: null, descending: false });
    this.requery();
  }

  // The panel

  private clicked(target: Element): void {
    const chosen = document.getSelection();
    if (chosen && !chosen.isCollapsed && this.scroller.body.contains(chosen.anchorNode)) return; // somebody is selecting text
    const element = target.closest<HTMLElement>(".pt-row");
    const side = Number(target.closest<HTMLElement>(".pt-output, .pt-score")?.dataset.side ?? 0);
    if (element) this.open(Number(element.getAttribute("aria-rowindex")) - 2, side);
  }

  private open(place: number, side: number): void {
    const row = this.table.row(place);
    if (!row) return;
    this.scroller.current = place;
    this.scroller.selected = row.position;
    const state = row.states[side] ?? "pending";
    const id = row.position * this.table.sides.length + side;
    this.panel.open({ id, name: `${this.table.sides[side]} · row ${row.position}`, state, fixed: state !== "running", position: row.position, side });
    this.say({ type: "details", row: row.position, side });
    this.draw();
    this.scroller.reveal(place);
  }

  private close(): void {
    const had = this.panel.element.contains(document.activeElement);
    this.panel.close();
    this.scroller.selected = -1;
    this.later();
    if (had) this.grid.focus({ preventScroll: true });
  }

  private outputs({ position, side, state }: RowSubject): { name: string; state: string; text: string }[] {
    let found: Row | undefined;
    for (const row of this.table.known()) if (row.position === position) found = row;
    const own = (column: Column) => column.role === "output" && column.side === side;
    return this.table.columns.flatMap((column, i) => (own(column) ? [{ name: column.name, state, text: found?.cells[i] ?? "" }] : []));
  }

  private detail(): void {
    this.detailing ||= window.setTimeout(() => {
      this.detailing = 0;
      const call = this.panel.call;
      if (call) this.say({ type: "details", row: call.position, side: call.side });
    }, DETAILS_EVERY_MS);
  }

  // The keyboard

  private key(event: KeyboardEvent): void {
    const target = event.target as Element;
    const header = target.closest<HTMLElement>("[role=columnheader]");
    if (event.key === "Escape" && this.panel.call) this.close();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (header && this.keyInHead(event.key, header)) event.preventDefault();
    else if (target === this.grid && this.keyInRows(event.key)) event.preventDefault();
    else {
      if (target === this.find) event.stopPropagation();
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private keyInHead(key: string, header: HTMLElement): boolean {
    const at = [...this.head.children].indexOf(header);
    const last = this.head.children.length - 1;
    const steps: Record<string, number> = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last };
    if (key === "Enter" || key === " ") this.sortBy(header.dataset.key);
    else if (key === "ArrowDown") this.grid.focus({ preventScroll: true });
    else if (key in steps) {
      this.headTab = Math.min(last, Math.max(0, steps[key]!));
      [...this.head.children].forEach((cell, i) => cell.setAttribute("tabindex", i === this.headTab ? "0" : "-1"));
      (this.head.children[this.headTab] as HTMLElement).focus();
    } else return false;
    return true;
  }

  private keyInRows(key: string): boolean {
    const { current } = this.scroller;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / ROW_HEIGHT) - 2);
    const last = this.table.matching - 1;
    const steps: Record<string, number> = { ArrowUp: current - 1, ArrowDown: current + 1, PageUp: current - page, PageDown: current + page, Home: 0, End: last };
    if (key === "Enter" || key === " ") this.open(current, this.panel.call?.side ?? 0);
    else if (key === "ArrowUp" && current === 0) (this.head.children[this.headTab] as HTMLElement).focus();
    else if (key in steps) {
      this.scroller.current = Math.min(last, Math.max(0, steps[key]!));
      this.scroller.reveal(this.scroller.current);
      if (this.panel.call && this.table.row(this.scroller.current)) this.open(this.scroller.current, this.panel.call.side);
      this.later();
    } else return false;
    return true;
  }
}
