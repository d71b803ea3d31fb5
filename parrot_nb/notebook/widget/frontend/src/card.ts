/** One item as an element, patched in place. */

import { h, icon, setAttribute, setText } from "./dom";
import { type Item, jointState } from "./items";
import { type Call, type State, type Store, isFinal, wordOf } from "./store";

const WORDS: Record<string, string> = { native: "python function", join: "text join", first: "race", semantic: "call" };

/** A card, pill or stack. `mini` is one of the cards of an open stack. */
export class Card {
  readonly element: HTMLElement;
  private readonly iconPlace = h("span", { class: "pg-icon" });
  private readonly name = h("span", { class: "pg-name" });
  private readonly count = h("span", { class: "pg-count" });
  private readonly tail = h("div", { class: "pg-tail" });
  private readonly which = h("div", { class: "pg-which" });
  private readonly text = h("div", { class: "pg-text" });
  private readonly bar = h("i", { class: "pg-bar" });
  private readonly parts = new Map<State, HTMLElement>();
  private state: State | null = null;

  constructor(
    readonly key: string,
    readonly calls: Call[],
    private readonly form: Item["shape"] | "mini",
  ) {
    const kind = calls[0]!.kind;
    this.element = h("div", {
      class: `pg-node pg-${form} pg-kind-${kind}`,
      role: "button",
      tabindex: -1,
      "data-key": key,
    });
    const head = h("div", { class: "pg-head" }, this.iconPlace);
    if (kind !== "semantic" && form !== "mini") {
      const badge = h("span", { class: "pg-kind", title: WORDS[kind]! }, icon(kind));
      head.append(badge);
    }
    head.append(this.name, this.count);
    this.tail.append(this.which, this.text);
    this.element.append(head);
    if (form === "stack") this.element.append(this.meter());
    else if (form !== "pill") this.element.append(this.tail);
    if (form === "card" || form === "mini") this.element.append(this.bar);
  }

  private meter(): HTMLElement {
    const meter = h("div", { class: "pg-meter", "aria-hidden": "true" });
    for (const state of ["done", "running", "failed", "cancelled", "unrun"] as const) {
      const part = h("i", { class: `pg-${state}` });
      this.parts.set(state, part);
      meter.append(part);
    }
    const hint = h("div", { class: "pg-hint" }, icon("unfold"), "open the stack");
    return h("div", { class: "pg-stacked" }, this.text, meter, hint);
  }

  patch(store: Store): void {
    if (this.form === "stack") this.patchStack(store);
    else this.patchCall(store, this.calls[0]!);
  }

  private setState(state: State, label: string): void {
    if (state !== this.state) {
      this.state = state;
      this.element.dataset.state = state;
      this.iconPlace.replaceChildren(icon(state));
    }
    setAttribute(this.element, "aria-label", label);
  }

  private patchCall(store: Store, call: Call): void {
    const name = this.form === "mini" ? `#${call.number}` : call.name === "+" ? "text" : call.name;
    const winner = store.winner(call);
    const won = winner ? `, ${winner.name} was first` : "";
    if (winner) setAttribute(this.element, "title", `${winner.name} was first`);
    this.setState(call.state, `${call.name}${this.form === "mini" ? ` number ${call.number}` : ""}, ${WORDS[call.kind]}, ${wordOf(call.state)}${won}`);
    setText(this.name, name);
    const { tokens, limit, memo } = store.progress(call);
    const running = call.state === "running";
    let count = memo ? "reused" : tokens ? `${tokens}${running && limit ? ` / ${limit}` : " tok"}` : "";
    if (!tokens && !isFinal(call.state) && call.phase !== "decode" && call.phase !== "native") count = call.phase;
    setText(this.count, this.form === "pill" ? "" : count);
    if (this.form === "pill") return;
    const output = store.shownOutput(call);
    const writing = output?.state === "running";
    const text = this.failure(store, call) ?? (writing ? output.text : store.written(call));
    const which = text && !writing && !call.error ? store.distinction(call) : "";
    setText(this.which, which);
    this.tail.classList.toggle("pg-told", Boolean(which));
    setText(this.text, text || store.reads(call));
    this.tail.classList.toggle("pg-reads", !text);
    this.tail.classList.toggle("pg-writing", writing);
    this.bar.style.transform = `scaleX(${running && limit ? Math.min(1, tokens / limit) : 0})`;
  }

  private failure(store: Store, call: Call): string | null {
    if (call.state !== "unrun") return call.error;
    const names = new Set([...store.causes(call)].map((cause) => cause.name));
    return names.size ? `not run: ${[...names].join(", ")} failed` : call.error;
  }

  private patchStack(store: Store): void {
    const counts = store.counts(this.calls);
    const name = this.calls[0]!.name;
    this.setState(jointState(this.calls), `${name}, ${counts.all} calls, ${counts.done} done. Opens on Enter.`);
    setText(this.name, name);
    setText(this.count, `×${counts.all}`);
    const said = [`${counts.done} done`];
    for (const state of ["running", "failed", "cancelled", "unrun"] as const) if (counts[state]) said.push(`${counts[state]} ${wordOf(state)}`);
    setText(this.text, said.join(" · "));
    for (const [state, part] of this.parts) part.style.flexGrow = String(counts[state]);
    this.parts.get("done")!.parentElement!.style.setProperty("--rest", String(counts.pending));
    const settled = this.calls.every((call) => isFinal(call.state));
    this.element.classList.toggle("pg-settled", settled);
  }
}
