/** What the page knows of a table: its columns, counts and scores, and the rows near those in sight. */

import type { State } from "./store";

export type Role = "input" | "expected" | "output" | "score";
export type Kind = "int" | "float" | "bool" | "text" | "any";

export interface Column {
  key: string;
  name: string;
  role: Role;
  /** Place of its function among several. */
  side: number;
  kind: Kind;
}

export interface Row {
  position: number;
  /** Of each function. */
  states: State[];
  /** Texts of its cells, by column; null where there is none. */
  cells: (string | null)[];
  /** Columns in which it differs from the first function. */
  differs: number[];
}

export interface Head {
  sides: string[];
  columns: [string, string, Role, number, Kind][];
}

export interface LiveRows {
  seq: number;
  total: number;
  matching: number;
  version: number;
  counts: Partial<Record<State, number>>;
  /** Of each function: name, rows scored, mean, interval. */
  scores: [string, number, string, string][];
  /** What was measured, with headers: a confusion matrix, or functions side by side. */
  measures: string[][];
  settled: boolean;
  rows: Record<string, [number, State[], (string | null)[], number[]]>;
}

const KEPT = 3000; // rows: others are asked for again

export class Table {
  sides: string[] = [];
  columns: Column[] = [];
  seq = 0;
  total = 0;
  matching = 0;
  counts: Partial<Record<State, number>> = {};
  scores: [string, number, string, string][] = [];
  measures: string[][] = [];
  settled = false;
  version = -1;
  /** Places in sight, first and one past the last: rows near them are kept. */
  sight: [number, number] = [0, 0];
  private readonly rows = new Map<number, Row>();

  restructure({ sides, columns }: Head): void {
    this.sides = sides;
    this.columns = columns.map(([key, name, role, side, kind]) => ({ key, name, role, side, kind }));
  }

  apply(live: LiveRows): void {
    if (live.version !== this.version) this.rows.clear(); // other rows stand in these places
    const { seq, total, matching, version, counts, scores, measures, settled } = live;
    Object.assign(this, { seq, total, matching, version, counts, scores, measures, settled });
    for (const [place, [position, states, cells, differs]] of Object.entries(live.rows)) {
      this.rows.set(Number(place), { position, states, cells, differs });
    }
    if (this.rows.size > KEPT) this.forget();
  }

  /** Forgets the rows far from those in sight, a good part at once. */
  private forget(): void {
    const [start, end] = this.sight;
    for (const place of [...this.rows.keys()]) if (place < start - KEPT / 4 || place >= end + KEPT / 4) this.rows.delete(place);
  }

  row(place: number): Row | undefined {
    return place < this.matching ? this.rows.get(place) : undefined;
  }

  /** Whether all rows from `start` to before `end` are known. */
  isFilled(start: number, end: number): boolean {
    for (let place = start; place < Math.min(end, this.matching); place++) if (!this.rows.has(place)) return false;
    return true;
  }

  *known(): Iterable<Row> {
    yield* this.rows.values();
  }

  /** One state for a row of several functions: the one that asks most for attention. */
  stateOf(row: Row): State {
    for (const state of ["failed", "cancelled", "running", "pending"] as const) if (row.states.includes(state)) return state;
    return "done";
  }

  /** Whether the cell of a column tells why there is no value. */
  isError(row: Row, column: Column): boolean {
    return column.role === "output" && ["failed", "cancelled"].includes(row.states[column.side]!);
  }
}
