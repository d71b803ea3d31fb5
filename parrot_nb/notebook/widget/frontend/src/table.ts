/** The anywidget module of tables: keeps the rows near those in sight, and brings a still table to life. */

import base from "./base.css";
import { h } from "./dom";
import panel from "./panel.css";
import { whenFound } from "./place";
import table from "./table.css";
import { type Head, type LiveRows, Table } from "./table_store";
import { type FilePart, type RowDetails, TableView } from "./table_view";

interface Model {
  get(name: "graph"): Head;
  get(name: "live"): LiveRows;
  get(name: "mark"): string;
  on(name: string, callback: (...values: never[]) => void): void;
  send(message: Record<string, unknown>): void;
}

type Message = ({ type: "live" } & LiveRows) | ({ type: "details" } & RowDetails) | ({ type: "csv" } & FilePart);

/** Runs once for each table, when Python makes its model. */
function initialize({ model, signal }: { model: Model; signal: AbortSignal }): void {
  const rows = new Table();
  const say = (message: Record<string, unknown>) => model.send(message);
  const view = new TableView(rows, say);
  view.restructure(model.get("graph"));
  view.apply(model.get("live"));
  model.on("change:graph", () => view.restructure(model.get("graph")));
  model.on("msg:custom", ((message: Message) => {
    if (message.type === "details") return view.take(message);
    if (message.type === "csv") return view.takeFile(message);
    const { seq } = rows;
    view.apply(message);
    if (message.seq > seq + 1) say({ type: "ready", seq, found: true }); // one got lost: ask for everything
  }) as never);
  const found = whenFound(model.get("mark"), view.element, {
    mounted() {
      if (!document.getElementById("parrot-table-style")) document.head.append(h("style", { id: "parrot-table-style" }, base + panel + table));
      say({ type: "mounted" });
    },
    removed() {
      view.dispose();
      say({ type: "closed" });
    },
    signal,
  });
  say({ type: "ready", seq: rows.seq, found });
  signal.addEventListener("abort", () => view.dispose());
}

export default { initialize };
