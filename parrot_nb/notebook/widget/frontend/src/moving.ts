/** Which node an arrow key leads to. */

import type { Box } from "./layout";
import type { Scene } from "./scene";
import type { Call, Store } from "./store";

export type Direction = "left" | "right" | "up" | "down";

/** Left and right follow the variables where they can; else, and up and down, the nearest node of that side. */
export function neighbour(scene: Scene, store: Store, key: string, direction: Direction): string | null {
  const from = scene.drawn.get(key);
  if (!from) return null;
  const connected = direction === "left" || direction === "right" ? related(scene, store, key, direction) : [];
  const candidates = connected.length ? connected : [...scene.drawn.keys()];
  let [best, least] = [null as string | null, Infinity];
  for (const other of candidates) {
    const drawn = scene.drawn.get(other);
    if (!drawn || other === key) continue;
    const distance = away(from.box, drawn.box, direction);
    if (distance < least) [best, least] = [other, distance];
  }
  return best;
}

function related(scene: Scene, store: Store, key: string, direction: "left" | "right"): string[] {
  const own = new Set(callsOf(scene, store, key));
  const found = new Set<string>();
  for (const call of store.calls.values()) {
    for (const source of store.sources(call)) {
      if (direction === "left" && own.has(call)) found.add(scene.keyOf(source));
      if (direction === "right" && own.has(source)) found.add(scene.keyOf(call));
    }
  }
  return [...found].filter((other) => scene.drawn.has(other));
}

function callsOf(scene: Scene, store: Store, key: string): Call[] {
  const item = scene.items.find((found) => found.key === key);
  const one = store.calls.get(Number(key.slice("call ".length)));
  return item?.calls ?? (one ? [one] : []);
}

/** How far a box is in a direction; Infinity where it is not on that side. Sideways counts double. */
function away(from: Box, to: Box, direction: Direction): number {
  const dx = to.x + to.width / 2 - from.x - from.width / 2;
  const dy = to.y + to.height / 2 - from.y - from.height / 2;
  const [along, across] = direction === "left" || direction === "right" ? [dx, dy] : [dy, dx];
  const ahead = direction === "left" || direction === "up" ? -along : along;
  return ahead > 1 ? ahead + 2 * Math.abs(across) : Infinity;
}
