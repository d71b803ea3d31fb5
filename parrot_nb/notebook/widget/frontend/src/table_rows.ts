/** The rows in sight: a few elements that are filled anew as the table is scrolled. */

import { h, icon, setAttribute, setText } from "./dom";
import { type State, wordOf } from "./store";
import type { Column, Row, Table } from "./table_store";

export const ROW_HEIGHT = 30;
const MOST_HEIGHT = 8_000_000; // of an element, in every browser; longer tables are scrolled in larger steps
const SPARE = 8; // rows above and below those in sight
const CHAR = 6.9; // pixels of an average letter
const NARROW = 150; // pixels to which columns of text shrink before the table is scrolled sideways
const ERROR_CHARS = 30; // of a reason, for which there is room
const [STATE_WIDTH, LEAST, MOST] = [104, 84, 380];

interface Drawn {
  element: HTMLElement;
  place: number;
  row: Row | undefined;
  state: HTMLElement;
  shownState: State | null;
  number: HTMLElement;
  cells: HTMLElement[];
}

export class Scroller {
  readonly body = h("div", { class: "pt-body", role: "rowgroup" });
  selected = -1; // position of the row in the panel
  current = 0; // place that the keyboard is at
  private readonly drawn = new Map<number, Drawn>();
  private readonly idle: Drawn[] = [];
  private sized = "";

  constructor(
    private readonly table: Table,
    private readonly frame: HTMLElement,
    private readonly head: HTMLElement,
    private readonly id: string,
  ) {}

  /** Makes all elements anew: the columns are others. */
  rebuild(): void {
    for (const { element } of [...this.drawn.values(), ...this.idle]) element.remove();
    this.drawn.clear();
    this.idle.length = 0;
    this.sized = "";
  }

  /** Places in sight, with some to spare: first, and one past the last. */
  sight(): [number, number] {
    const first = Math.floor(this.offset() / ROW_HEIGHT);
    const count = Math.ceil(this.frame.clientHeight / ROW_HEIGHT);
    return [Math.max(0, first - SPARE), Math.min(this.table.matching, first + count + SPARE)];
  }

  draw(): void {
    this.size();
    this.body.style.height = `${this.height()}px`;
    const [first, end] = (this.table.sight = this.sight());
    for (const [place, drawn] of this.drawn) {
      if (place >= first && place < end) continue;
      this.drawn.delete(place);
      this.idle.push(drawn);
    }
    const lift = this.frame.scrollTop - this.offset();
    for (let place = first; place < end; place++) {
      let drawn = this.drawn.get(place);
      if (!drawn) {
        drawn = this.idle.pop() ?? this.make();
        this.drawn.set(place, drawn);
        drawn.row = undefined;
        drawn.place = place;
        drawn.element.id = `${this.id}-${place}`;
        setAttribute(drawn.element, "aria-rowindex", String(place + 2));
        this.fill(drawn, this.table.row(place));
      }
      drawn.element.hidden = false;
      drawn.element.style.transform = `translateY(${place * ROW_HEIGHT + lift}px)`;
      const row = this.table.row(place);
      if (drawn.row !== row) this.fill(drawn, row);
      const selected = row !== undefined && row.position === this.selected;
      setAttribute(drawn.element, "aria-selected", String(selected));
      drawn.element.classList.toggle("pt-current", place === this.current);
    }
    for (const { element } of this.idle) element.hidden = true;
    if (this.drawn.has(this.current)) setAttribute(this.frame, "aria-activedescendant", `${this.id}-${this.current}`);
    else this.frame.removeAttribute("aria-activedescendant");
  }

  /** Scrolls as far as a place needs to be in sight. */
  reveal(place: number): void {
    const room = this.frame.clientHeight - this.head.offsetHeight;
    const [top, offset] = [place * ROW_HEIGHT, this.offset()];
    if (top < offset) this.scrollTo(top);
    else if (top + ROW_HEIGHT > offset + room) this.scrollTo(top + ROW_HEIGHT - room);
  }

  private height(): number {
    return Math.min(MOST_HEIGHT, this.table.matching * ROW_HEIGHT);
  }

  /** Pixels of rows above the first in sight; more than were scrolled where the table is longer than an element can be. */
  private offset(): number {
    return this.frame.scrollTop * this.stretch();
  }

  private scrollTo(offset: number): void {
    this.frame.scrollTop = offset / this.stretch();
  }

  private stretch(): number {
    const room = this.frame.clientHeight - this.head.offsetHeight;
    const height = this.height();
    return height <= room ? 1 : (this.table.matching * ROW_HEIGHT - room) / (height - room);
  }

  private make(): Drawn {
    const number = h("div", { class: "pt-cell pt-number", role: "rowheader", "aria-colindex": 1 });
    const state = h("div", { class: "pt-cell pt-state", role: "gridcell", "aria-colindex": 2 });
    const cells = this.table.columns.map((column, i) => {
      const classes = ["pt-cell", isNumber(column) && "pt-right", `pt-${column.role}`].filter(Boolean).join(" ");
      return h("div", { class: classes, role: "gridcell", "aria-colindex": i + 3, dir: "auto", "data-side": column.side });
    });
    const element = h("div", { class: "pt-row", role: "row" }, number, state, ...cells);
    this.body.append(element);
    return { element, place: -1, row: undefined, state, shownState: null, number, cells };
  }

  private fill(drawn: Drawn, row: Row | undefined): void {
    drawn.row = row;
    drawn.element.classList.toggle("pt-unknown", !row);
    setText(drawn.number, row ? String(row.position) : "");
    const state = row ? this.table.stateOf(row) : null;
    if (state !== drawn.shownState) {
      drawn.shownState = state;
      drawn.state.replaceChildren(...(state ? [icon(state), wordOf(state)] : []));
      setAttribute(drawn.element, "data-state", state ?? "");
    }
    this.table.columns.forEach((column, i) => {
      const cell = drawn.cells[i]!;
      const text = row?.cells[i] ?? null;
      const error = row !== undefined && text !== null && this.table.isError(row, column);
      const waits = row !== undefined && text === null && this.table.sides.length > 1 && column.role === "output" ? row.states[column.side]! : null;
      const missing = row !== undefined && text === null && (column.role === "input" || (column.role === "output" && row.states[column.side] === "done"));
      const differs = row?.differs.includes(i) ?? false;
      // The reason takes the room of all outputs of its function.
      const covered = row !== undefined && this.covered(row, i);
      const span = error ? this.table.columns.filter((other) => other.role === "output" && other.side === column.side).length : 1;
      cell.hidden = covered;
      cell.style.gridColumn = span > 1 ? `span ${span}` : "";
      setText(cell, text ?? (waits && waits !== "done" ? wordOf(waits) : missing ? "none" : ""));
      cell.classList.toggle("pt-error", error);
      cell.classList.toggle("pt-none", text === null);
      cell.classList.toggle("pt-differs", differs);
      if (text !== null && text.length > 24) setAttribute(cell, "title", differs ? `differs: ${text}` : text);
      else if (differs) setAttribute(cell, "title", "differs from the first function");
      else cell.removeAttribute("title");
    });
  }

  /** Whether a cell stands behind the reason why its row has no value. */
  private covered(row: Row, at: number): boolean {
    const { columns } = this.table;
    const column = columns[at]!;
    const first = columns.findIndex((other) => other.role === "output" && other.side === column.side);
    return column.role === "output" && at !== first && this.table.isError(row, column);
  }

  /** Gives columns the room that their first texts need; once more when one has texts for the first time. */
  private size(): void {
    const longest = this.table.columns.map(({ name }) => name.length + 4);
    const filled = this.table.columns.map(() => false);
    let rows = 0;
    for (const row of this.table.known()) {
      if (++rows > 60) break;
      row.cells.forEach((text, i) => {
        if (text === null) return;
        if (this.table.isError(row, this.table.columns[i]!)) {
          longest[i] = Math.max(longest[i]!, ERROR_CHARS);
          return;
        }
        filled[i] = true;
        longest[i] = Math.max(longest[i]!, text.length);
      });
    }
    const key = `${filled.join()} ${longest.map((length) => length >= ERROR_CHARS).join()}`;
    if (key === this.sized) return;
    this.sized = key;
    const digits = String(this.table.total).length;
    const tracks = [Math.max(52, 24 + digits * 8), STATE_WIDTH];
    const templates = tracks.map((width) => `${width}px`);
    this.table.columns.forEach((column, i) => {
      const wanted = filled[i] || column.kind !== "text" ? longest[i]! * CHAR + 26 : 220;
      const width = Math.round(Math.min(MOST, Math.max(LEAST, wanted)));
      const least = isNumber(column) ? width : Math.min(width, NARROW);
      tracks.push(least);
      templates.push(isNumber(column) ? `${width}px` : `minmax(${least}px, ${width}fr)`);
    });
    if (!this.table.columns.some((column) => !isNumber(column))) templates.push("1fr");
    this.frame.style.setProperty("--pt-tracks", templates.join(" "));
    this.frame.style.setProperty("--pt-width", `${tracks.reduce((sum, width) => sum + width, 0)}px`);
  }
}

export function isNumber({ kind }: Column): boolean {
  return kind === "int" || kind === "float";
}
