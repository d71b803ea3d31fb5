/** The side panel: all that is known of one call. What the page does not know it asks for. */

import { button, h, icon } from "./dom";
import { type State, isFinal, wordOf } from "./store";

/** What a panel tells of: a call of a graph, or a row of a table. */
export interface Subject {
  id: number;
  name: string;
  state: State;
  /** Whether it cannot be cancelled by itself. */
  fixed?: boolean;
}

/** What the page itself knows of a subject. */
export interface Known<S extends Subject> {
  outputs(subject: S): { name: string; state: string; text: string }[];
  /** Those because of whose failure it did not run. */
  causes(subject: S): Iterable<S>;
}

interface Shown {
  state: string;
  text: string;
  cut: number;
}

/** What a model thought before a value; `said` is how much. */
interface Thoughts {
  text: string;
  cut: number;
  said: string;
}

type Segment = Partial<Shown> & {
  kind: "constant" | "input" | "output";
  name?: string;
  text: string;
  shared: boolean;
  taken_back?: string;
};

/** As `parrot_nb.notebook.widget.details` makes it. */
export interface Details {
  id: number;
  forgotten?: boolean;
  prompt: Segment[];
  sharers: number;
  inputs: (Shown & { parameter: string; name: string; producer: string | null })[];
  outputs: (Shown & { name: string; finish: string | null; note: string | null; thinking: Thoughts | null; scores: [string, string, number][] })[];
  why: string[];
  tokens: Record<"prefilled" | "reused" | "decoded" | "guessed", number> & { memo: boolean };
  seconds: [string, number][];
  engine: string | null;
  error: string[];
}

const TOKEN_WORDS = { prefilled: "prefilled", reused: "reused", decoded: "decoded", guessed: "of them guessed" } as const;

export class Panel<S extends Subject> {
  readonly element = h("aside", { class: "pg-panel", hidden: true, tabindex: -1 });
  call: S | null = null;
  private readonly head = h("div", { class: "pg-panel-head" });
  private readonly body = h("div", { class: "pg-panel-body", tabindex: 0 });
  private details: Details | null = null;
  private readonly unfolded = new Set<string>(); // outputs whose thoughts are shown

  constructor(
    private readonly store: Known<S>,
    private readonly act: { close: () => void; cancel: (call: S) => void; show: (call: S) => void },
  ) {
    this.element.append(this.head, this.body);
  }

  /** Shows a call, at first by what the page knows. */
  open(call: S): void {
    if (this.call?.id !== call.id) {
      this.details = null;
      this.unfolded.clear();
    }
    this.call = call;
    this.element.hidden = false;
    this.element.setAttribute("aria-label", `Details of ${call.name}`);
    this.draw();
  }

  close(): void {
    this.call = null;
    this.details = null;
    this.element.hidden = true;
  }

  take(details: Details): void {
    if (details.id !== this.call?.id) return;
    this.details = details;
    this.draw();
  }

  private draw(): void {
    const call = this.call!;
    const state = h("span", { class: "pg-chip", "data-state": call.state }, icon(call.state), wordOf(call.state));
    const running = !isFinal(call.state) && !call.fixed;
    const actions = [button("copy", "Copy the value", () => void this.copy())];
    if (running) actions.push(button("stop", "Cancel this call", () => this.act.cancel(call)));
    actions.push(button("close", "Close the details (Esc)", this.act.close));
    const focused = this.head.contains(document.activeElement) ? document.activeElement!.getAttribute("aria-label") : null;
    this.head.replaceChildren(
      h("strong", { class: "pg-panel-name" }, call.name === "+" ? "text" : call.name),
      state,
      h("span", { class: "pg-actions" }, ...actions),
    );
    if (focused) (this.head.querySelector<HTMLElement>(`[aria-label="${focused}"]`) ?? this.body).focus();
    const [top, chosen] = [this.body.scrollTop, document.getSelection()];
    if (chosen && !chosen.isCollapsed && this.body.contains(chosen.anchorNode)) return; // somebody is selecting text in it
    this.body.replaceChildren(...this.sections(call));
    this.body.scrollTop = top;
  }

  private *sections(call: S): Iterable<Node> {
    const details = this.details;
    if (!details) {
      yield section("Value", ...this.store.outputs(call).map((o) => value(o.name, { state: o.state, text: o.text, cut: 0 }, "")));
      return;
    }
    if (details.forgotten) {
      yield h("p", { class: "pg-note" }, "The session has forgotten this call: %parrot reset.");
      return;
    }
    const causes = call.state === "unrun" ? [...this.store.causes(call)] : [];
    if (causes.length) {
      const links = causes.slice(0, 8).map((cause) => button("failed", `Go to ${cause.name}, which ${cause.state === "failed" ? "failed" : "was cancelled"}`, () => this.act.show(cause), cause.name));
      yield section("Cause", h("div", { class: "pg-causes" }, ...links));
    }
    if (details.error.length) yield section("Error", h("pre", { class: "pg-error", "data-state": call.state }, details.error.join("\n")));
    const outputs = details.outputs.filter((o) => o.text || o.thinking || !details.error.length);
    if (outputs.length) yield section("Value", ...outputs.flatMap((o) => [value(o.name, o, this.said(o.finish, o.note)), ...this.thoughts(o), ...bars(o.scores)]));
    if (details.prompt.length) yield this.prompt(details);
    else yield section("Reads", ...details.inputs.map((i) => value(i.parameter, i, i.producer ? `from ${i.producer}` : "given")));
    if (details.why.length) yield section("Why", ...details.why.map((line) => h("p", { class: "pg-why" }, ...marked(line))));
    if (Object.values(details.tokens).some(Boolean)) yield tokens(details);
    if (details.seconds.length) yield times(details.seconds);
    if (details.engine && !details.why.some((line) => line.includes(details.engine!))) {
      yield section("Engine", h("p", { class: "pg-why" }, details.engine));
    }
  }

  /** What was thought before a value, folded away until somebody asks. */
  private thoughts({ name, thinking }: Details["outputs"][number]): HTMLElement[] {
    if (!thinking) return [];
    const text = thinking.text + (thinking.cut ? `\n… and ${thinking.cut} more characters` : "");
    const attributes = { class: "pg-thinking", open: this.unfolded.has(name) };
    const fold = h("details", attributes, h("summary", {}, thinking.said), h("pre", {}, text));
    fold.addEventListener("toggle", () => this.unfolded[fold.open ? "add" : "delete"](name));
    return [fold];
  }

  private said(finish: string | null, note: string | null): string {
    return [finish === "length" ? "cut at its length limit" : "", note ?? ""].filter(Boolean).join(" · ");
  }

  private prompt({ prompt, sharers }: Details): HTMLElement {
    const lastShared = prompt.map((s) => s.shared).lastIndexOf(true);
    const text = h("div", { class: "pg-prompt" });
    prompt.forEach((segment, i) => {
      const shown = segment.text || `{${segment.name}}`;
      const missing = segment.kind !== "constant" && !segment.text;
      const marks = [segment.shared && "pg-shared", missing && "pg-missing", segment.taken_back && "pg-healed"];
      const classes = ["pg-seg", `pg-${segment.kind}`, ...marks].filter(Boolean).join(" ");
      const healed = segment.taken_back ? `, its first token chosen anew from ${JSON.stringify(segment.taken_back)} on` : "";
      const title = segment.kind === "constant" ? "constant" : `${segment.kind} ${segment.name}${healed}`;
      const ends = i === lastShared && sharers > 0;
      const body = ends ? shown.trimEnd() : shown; // the mark stands behind the last word, not on the next line
      text.append(h("span", { class: classes, title }, body + (segment.cut ? " …" : "")));
      if (!ends) return;
      const others = `shared with ${sharers} other call${sharers > 1 ? "s" : ""}`;
      text.append(h("span", { class: "pg-shared-end", title: others }, `up to here ${others}`), shown.slice(body.length));
    });
    const legend = h("span", { class: "pg-legend" });
    for (const kind of ["constant", "input", "output"]) legend.append(h("span", { class: `pg-seg pg-${kind}` }, kind));
    if (sharers) legend.append(h("span", { class: "pg-seg pg-shared" }, "shared prefix"));
    const found = section("Prompt", text);
    found.querySelector("h4")!.append(legend);
    return found;
  }

  private async copy(): Promise<void> {
    const outputs = this.details?.outputs ?? this.store.outputs(this.call!);
    const text = outputs.map((output) => output.text).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages without https have no clipboard of that kind.
      const area = h("textarea", { class: "pg-unseen" });
      area.value = text;
      this.element.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const copy = this.head.querySelector(".pg-button");
    copy?.classList.add("pg-did");
    setTimeout(() => copy?.classList.remove("pg-did"), 900);
  }
}

function section(title: string, ...children: Node[]): HTMLElement {
  return h("section", { class: "pg-section" }, h("h4", {}, title), ...children);
}

function value(name: string, shown: Shown, said: string): HTMLElement {
  const head = h("div", { class: "pg-value-name" }, h("b", {}, name), said ? ` · ${said}` : "");
  const text = shown.text || (shown.state === "done" ? "(empty)" : `(${shown.state})`);
  const body = h("pre", { class: `pg-value${shown.text ? "" : " pg-none"}` }, text);
  if (shown.state === "running") body.append(h("span", { class: "pg-caret" }));
  if (shown.cut) body.append(h("span", { class: "pg-none" }, `\n… and ${shown.cut} more characters`));
  return h("div", {}, head, body);
}

/** The probabilities of the choices that a value was chosen from: text, percent in words, share of one. */
function bars(scores: [string, string, number][]): HTMLElement[] {
  if (!scores.length) return [];
  const table = h("div", { class: "pg-scores" });
  for (const [text, percent, share] of scores) {
    const bar = h("i");
    bar.style.width = `${100 * share}%`;
    table.append(h("span", { title: text }, text), h("span", { class: "pg-score", "aria-hidden": "true" }, bar), h("b", {}, percent));
  }
  return [table];
}

function tokens({ tokens: counted }: Details): HTMLElement {
  const table = h("div", { class: "pg-figures" });
  for (const [key, word] of Object.entries(TOKEN_WORDS)) {
    table.append(h("div", {}, h("b", {}, String(counted[key as keyof typeof TOKEN_WORDS])), h("span", {}, word)));
  }
  const found = section("Tokens", table);
  if (counted.memo) found.append(h("p", { class: "pg-why" }, "Taken from an equal generation: nothing was computed."));
  return found;
}

/** Time spent in each phase, as parts of one bar and in figures. */
function times(seconds: [string, number][]): HTMLElement {
  const bar = h("div", { class: "pg-times", "aria-hidden": "true" });
  const words = h("div", { class: "pg-figures" });
  for (const [phase, spent] of seconds) {
    const part = h("i", { class: `pg-phase-${phase}` });
    part.style.flexGrow = String(Math.max(spent, 0.001));
    bar.append(part);
    words.append(h("div", {}, h("b", {}, duration(spent)), h("span", {}, h("i", { class: `pg-dot pg-phase-${phase}` }), phase)));
  }
  return section("Time", bar, words);
}

function duration(seconds: number): string {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** A line of explanation with its first word, such as "Objective:", set off. */
function marked(line: string): (Node | string)[] {
  const end = line.indexOf(":");
  return end > 0 && end < 16 ? [h("b", {}, line.slice(0, end)), line.slice(end + 1)] : [line];
}
