/** What an edge says of its variables when one points at it. */

import { h } from "./dom";
import type { Edge } from "./items";
import type { Scene } from "./scene";

const HEAD_CHARS = 140;

export class Tooltip {
  readonly element = h("div", { class: "pg-tooltip", hidden: true, role: "tooltip" });

  constructor(
    private readonly frame: HTMLElement,
    scene: Scene,
  ) {
    frame.addEventListener("pointermove", (event) => {
      const key = event.target instanceof Element ? event.target.getAttribute("data-edge") : null;
      const edge = key === null || event.buttons ? undefined : scene.edge(key);
      if (edge) this.show(edge, event, scene.isLost(edge));
      else this.hide();
    });
    frame.addEventListener("pointerleave", () => this.hide());
  }

  hide(): void {
    if (!this.element.hidden) this.element.hidden = true;
  }

  private show({ variables }: Edge, event: PointerEvent, lost: boolean): void {
    const [first] = variables;
    const tokens = variables.reduce((sum, variable) => sum + variable.tokens, 0);
    const done = variables.filter((variable) => variable.state === "done").length;
    const names = [...new Set(variables.map((variable) => variable.name))];
    const title = variables.length === 1 ? first!.name : `${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""} ×${variables.length}`;
    const state = variables.length === 1 ? first!.state : `${done} of ${variables.length} done`;
    const facts = [state, ...(tokens ? [`${tokens} tokens`] : []), ...(lost ? ["another one was first"] : [])].join(" · ");
    const text = variables.length === 1 ? first!.text.trim().slice(0, HEAD_CHARS) : "";
    this.element.replaceChildren(h("div", {}, h("b", {}, title), ` ${facts}`), ...(text ? [h("div", { class: "pg-tooltip-text" }, text)] : []));
    this.element.hidden = false;
    const box = this.frame.getBoundingClientRect();
    const [x, y] = [event.clientX - box.x + 14, event.clientY - box.y + 16];
    this.element.style.left = `${Math.max(4, Math.min(x, box.width - this.element.offsetWidth - 4))}px`;
    this.element.style.top = `${y + this.element.offsetHeight > box.height ? Math.max(4, y - this.element.offsetHeight - 26) : y}px`;
  }
}
