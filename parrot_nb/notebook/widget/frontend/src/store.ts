/** What the page knows of a graph: its structure, and the state of every call and variable. */

/** "unrun" is a call that failed because what it reads had failed. */
export type State = "pending" | "running" | "done" | "failed" | "cancelled" | "unrun";
export type Kind = "semantic" | "native" | "join" | "first";

export interface Call {
  id: number;
  name: string;
  kind: Kind;
  inputs: [string, number][];
  outputs: number[];
  layer: number;
  /** Its number among the like calls of its layer, from 1. */
  number: number;
  stack: string;
  state: State;
  phase: string;
  objective: string | null;
  error: string | null;
}

export interface Variable {
  id: number;
  name: string;
  producer: number | null;
  limit: number | null;
  state: State;
  tokens: number;
  text: string;
  memo: boolean;
  /** The variable whose value it has, where that was the first of several. */
  like: number | null;
}

export interface Group {
  stage: number;
  calls: number[];
}

export interface Structure {
  calls: [number, string, Kind, [string, number][], number[]][];
  variables: [number, string, number | null, number | null][];
  groups: [number, number[]][];
}

export interface Live {
  seq: number;
  calls?: Record<string, [State, string, string | null, string | null]>;
  variables?: Record<string, [State, number, string, number, number | null]>;
  loading?: boolean;
  notes?: string[];
}

/** Like calls of a stage from this number on are shown as one stack. */
export const STACK_FROM = 6;
const FINAL: ReadonlySet<State> = new Set(["done", "failed", "cancelled", "unrun"]);
const SAID_CHARS = 60;
const flat = (text: string): string => text.trim().replace(/\s+/g, " ");

export const wordOf = (state: State): string => (state === "unrun" ? "not run" : state);
export const isFinal = (state: State): boolean => FINAL.has(state);

export class Store {
  readonly calls = new Map<number, Call>();
  readonly variables = new Map<number, Variable>();
  groups: Group[] = [];
  /** Calls by stack: those of one function in one layer, in order. */
  readonly stacks = new Map<string, Call[]>();
  /** Calls by the name of their function. */
  private readonly named = new Map<string, Call[]>();
  seq = 0;
  loading = false;
  notes: string[] = [];

  /** Takes over calls, variables and groups; what is known of their state stays. */
  restructure({ calls, variables, groups }: Structure): void {
    const before = { calls: new Map(this.calls), variables: new Map(this.variables) };
    this.calls.clear();
    this.variables.clear();
    this.stacks.clear();
    this.named.clear();
    for (const [id, name, producer, limit] of variables) {
      const known = before.variables.get(id);
      this.variables.set(id, known ?? { id, name, producer, limit, state: "pending", tokens: 0, text: "", memo: false, like: null });
    }
    for (const [id, name, kind, inputs, outputs] of calls) {
      const known = before.calls.get(id);
      const fresh = { state: "pending" as State, phase: "waiting", objective: null, error: null };
      const call: Call = { ...(known ?? fresh), id, name, kind, inputs, outputs, layer: 0, number: 0, stack: "" };
      for (const source of this.sources(call)) call.layer = Math.max(call.layer, source.layer + 1);
      call.stack = `${call.layer}/${kind}/${name}`;
      const alike = this.stacks.get(call.stack) ?? [];
      call.number = alike.push(call);
      this.stacks.set(call.stack, alike);
      this.calls.set(id, call);
      const peers = this.named.get(name) ?? [];
      peers.push(call);
      this.named.set(name, peers);
    }
    this.groups = groups.map(([stage, ids]) => ({ stage, calls: ids }));
  }

  /** Takes over the rows of a message; returns the calls to be drawn anew. */
  apply(live: Live): Set<Call> {
    const changed = new Set<Call>();
    this.seq = live.seq;
    this.loading = live.loading ?? this.loading;
    this.notes = live.notes ?? this.notes;
    for (const [id, [state, phase, objective, error]] of Object.entries(live.calls ?? {})) {
      const call = this.calls.get(Number(id));
      if (call) changed.add(Object.assign(call, { state, phase, objective, error }));
    }
    for (const [id, [state, tokens, text, memo, like]] of Object.entries(live.variables ?? {})) {
      const variable = this.variables.get(Number(id));
      if (!variable) continue;
      Object.assign(variable, { state, tokens, text, memo: memo === 1, like });
      const producer = variable.producer === null ? undefined : this.calls.get(variable.producer);
      if (producer) changed.add(producer);
    }
    return changed;
  }

  /** The calls that a call reads from. */
  *sources(call: Call): Iterable<Call> {
    for (const [, id] of call.inputs) {
      const producer = this.variables.get(id)?.producer;
      const source = producer === null || producer === undefined ? undefined : this.calls.get(producer);
      if (source) yield source;
    }
  }

  outputs(call: Call): Variable[] {
    return call.outputs.map((id) => this.variables.get(id)).filter((found) => found !== undefined);
  }

  /** Of a race: the variable that was first. */
  winner(call: Call): Variable | undefined {
    const like = call.kind === "first" ? this.outputs(call)[0]?.like : null;
    return like === null || like === undefined ? undefined : this.variables.get(like);
  }

  /** Tokens written so far, and the most there may be (0 where nobody knows). */
  progress(call: Call): { tokens: number; limit: number; memo: boolean } {
    let [tokens, limit, memo] = [0, 0, true];
    for (const output of this.outputs(call)) {
      tokens += output.tokens;
      limit += output.limit ?? 0;
      memo &&= output.memo;
    }
    return { tokens, limit, memo: memo && call.state === "done" };
  }

  /** What a card shows of a call: the output that is being written, else the last one that has text. */
  shownOutput(call: Call): Variable | undefined {
    const outputs = this.outputs(call);
    return outputs.find((o) => o.state === "running") ?? [...outputs].reverse().find((o) => o.text) ?? outputs[0];
  }

  /** What a call reads, in short: all there is to say of it before it writes. */
  reads(call: Call): string {
    const said = call.inputs.slice(0, 3).map(([parameter, id]) => {
      const variable = this.variables.get(id);
      const text = variable?.state === "done" ? variable.text.trim().replace(/\s+/g, " ").slice(0, 60) : "…";
      return call.kind === "semantic" ? `${parameter}: ${text}` : text;
    });
    return said.join("\n");
  }

  /** The input by which a call differs from others of its function, in short; empty where none does. */
  distinction(call: Call): string {
    const peers = this.named.get(call.name) ?? [];
    if (peers.length < 2 || call.kind === "join" || call.kind === "first") return "";
    const peer = peers[0] === call ? peers[1]! : peers[0]!; // one is enough to tell what varies
    const its = new Map(peer.inputs);
    const differs = call.inputs.filter(([parameter, id]) => its.get(parameter) !== id);
    const given = differs.find(([, id]) => this.variables.get(id)?.producer === null) ?? differs[0];
    const text = given && this.variables.get(given[1])?.text;
    return text ? `${given[0]}: ${flat(text).slice(0, SAID_CHARS)}` : "";
  }

  /** What a call has written: each output by its name where it has several. */
  written(call: Call): string {
    const outputs = this.outputs(call);
    if (outputs.length < 2) return outputs[0]?.text ?? "";
    return outputs.filter((o) => o.text).map((o) => `${o.name}: ${flat(o.text)}`).join("\n");
  }

  /** Whether a call's name, state, error or texts have some words in them, which are in lower case. */
  tells(call: Call, words: string): boolean {
    const texts = [call.name, wordOf(call.state), call.error ?? "", ...this.outputs(call).map((o) => o.text)];
    if (call.inputs.length) texts.push(...call.inputs.map(([, id]) => this.variables.get(id)?.text ?? ""));
    return texts.some((text) => text.toLowerCase().includes(words));
  }

  /** The calls because of whose failure this one did not run. */
  *causes(call: Call, seen = new Set<Call>()): Iterable<Call> {
    for (const source of this.sources(call)) {
      if (seen.has(source) || !["failed", "cancelled", "unrun"].includes(source.state)) continue;
      seen.add(source);
      if (source.state === "unrun") yield* this.causes(source, seen);
      else yield source;
    }
  }

  counts(calls: Iterable<Call>): Record<State, number> & { all: number } {
    const counts = { pending: 0, running: 0, done: 0, failed: 0, cancelled: 0, unrun: 0, all: 0 };
    for (const call of calls) {
      counts[call.state] += 1;
      counts.all += 1;
    }
    return counts;
  }

  get settled(): boolean {
    for (const call of this.calls.values()) if (!isFinal(call.state)) return false;
    return true;
  }
}
