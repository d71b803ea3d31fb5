/** The anywidget module: keeps a graph's state in the page, and brings the still picture of it to life. */

import { h } from "./dom";
import { whenFound } from "./place";
import { type Live, Store, type Structure } from "./store";
import { View } from "./view";
import base from "./base.css";
import panel from "./panel.css";
import graph from "./widget.css";
import type { Details } from "./panel";

interface Model {
  get(name: "graph"): Structure;
  get(name: "live"): Live;
  get(name: "mark"): string;
  on(name: string, callback: (...values: never[]) => void): void;
  send(message: Record<string, unknown>): void;
}

type Message = ({ type: "live" } & Live) | ({ type: "details" } & Details);

/** Runs once for each graph, when Python makes its model. */
function initialize({ model, signal }: { model: Model; signal: AbortSignal }): void {
  const store = new Store();
  const say = (message: Record<string, unknown>) => model.send(message);
  const view = new View(store, say);
  view.restructure(model.get("graph"));
  view.apply(model.get("live"));
  model.on("change:graph", () => view.restructure(model.get("graph")));
  model.on("msg:custom", ((message: Message) => {
    if (message.type === "details") return view.take(message);
    const { seq } = store;
    view.apply(message);
    if (message.seq > seq + 1) say({ type: "ready", seq, found: true }); // one got lost: ask for everything
  }) as never);
  const found = whenFound(model.get("mark"), view.element, {
    mounted() {
      if (!document.getElementById("parrot-graph-style")) document.head.append(h("style", { id: "parrot-graph-style" }, base + graph + panel));
      say({ type: "mounted" });
    },
    removed() {
      view.dispose();
      say({ type: "closed" });
    },
    signal,
  });
  say({ type: "ready", seq: store.seq, found });
  signal.addEventListener("abort", () => view.dispose());
}

export default { initialize };
