/** Finds calls by name, state or text: what does not match fades, Enter goes from match to match. */

import { h } from "./dom";
import type { Scene } from "./scene";
import type { Call, Store } from "./store";

/** So many calls are seen at a glance. */
const FEW = 8;

export class Finder {
  readonly element = h("input", {
    class: "pg-find",
    type: "search",
    placeholder: "Find",
    "aria-label": "Find calls by name, state or text; Enter goes to the next",
    hidden: true,
  });
  private at = -1;

  constructor(
    private readonly store: Store,
    private readonly scene: Scene,
    private readonly go: (call: Call) => void,
  ) {
    this.element.addEventListener("input", () => {
      this.at = -1;
      this.fade();
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.next(event.shiftKey ? -1 : 1);
      else if (event.key === "Escape" && this.element.value) {
        this.element.value = "";
        this.fade();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  private get wanted(): string {
    return this.element.value.trim().toLowerCase();
  }

  /** Lets what does not match fade; called again when texts and states have changed. */
  fade(): void {
    this.element.hidden = this.store.calls.size < FEW && !this.wanted;
    const { wanted } = this;
    if (!wanted && !this.scene.faded) return;
    this.scene.faded = Boolean(wanted);
    for (const { card } of this.scene.drawn.values()) {
      const matches = !wanted || card.calls.some((call) => this.store.tells(call, wanted));
      card.element.classList.toggle("pg-faded", !matches);
    }
  }

  private next(step: number): void {
    const { wanted } = this;
    const found = [...this.store.calls.values()].filter((call) => wanted && this.store.tells(call, wanted));
    if (!found.length) return;
    this.at = this.at < 0 ? (step > 0 ? 0 : found.length - 1) : (this.at + step + found.length) % found.length;
    this.go(found[this.at]!);
  }
}
