/** A large graph in small, in a corner of its frame: what is in sight, and the state of every call. A click looks there. */

import type { Camera } from "./camera";
import { h } from "./dom";
import type { Scene } from "./scene";

const FROM_NODES = 40;
const WIDTH = 168;
const MOST_HEIGHT = 96;
const LEAST_BOX = 2;
const EVERY_MS = 200;

export class Minimap {
  readonly element = h("canvas", { class: "pg-map", hidden: true, "aria-hidden": "true" });
  private drawnMs = 0;
  private later = 0;

  constructor(
    private readonly scene: Scene,
    private readonly camera: () => Camera,
  ) {
    for (const kind of ["pointerdown", "pointermove"] as const)
      this.element.addEventListener(kind, (event) => {
        event.stopPropagation();
        if (!(event.buttons & 1)) return;
        const box = this.element.getBoundingClientRect();
        const { width, height } = this.scene.plan;
        this.camera().center(((event.clientX - box.x) / box.width) * width, ((event.clientY - box.y) / box.height) * height);
      });
  }

  /** Draws what has changed, a few times a second at most. */
  draw(): void {
    const wait = this.drawnMs + EVERY_MS - performance.now();
    if (wait <= 0) this.paint();
    else this.later ||= window.setTimeout(() => this.paint(), wait);
  }

  dispose(): void {
    clearTimeout(this.later);
  }

  private paint(): void {
    this.later = 0;
    this.drawnMs = performance.now();
    const { width, height } = this.scene.plan;
    const view = this.camera().view;
    const whole = view.x <= 0 && view.y <= 0 && view.width >= width && view.height >= height;
    this.element.hidden = this.scene.drawn.size <= FROM_NODES || whole;
    const canvas = this.element.getContext("2d");
    if (this.element.hidden || !canvas) return;
    const scale = Math.min(WIDTH / width, MOST_HEIGHT / height);
    const ratio = window.devicePixelRatio || 1;
    Object.assign(this.element, { width: width * scale * ratio, height: height * scale * ratio });
    Object.assign(this.element.style, { width: `${width * scale}px`, height: `${height * scale}px` });
    canvas.scale(scale * ratio, scale * ratio);
    const colours = new Map<string, string>();
    for (const { card, box } of this.scene.drawn.values()) {
      const state = card.element.dataset.state ?? "pending";
      if (!colours.has(state)) colours.set(state, getComputedStyle(card.element.querySelector(".pg-icon")!).color);
      canvas.fillStyle = colours.get(state)!;
      canvas.fillRect(box.x, box.y, Math.max(box.width, LEAST_BOX / scale), Math.max(box.height, LEAST_BOX / scale));
    }
    canvas.strokeStyle = getComputedStyle(this.element).color;
    canvas.lineWidth = 2 / scale;
    canvas.strokeRect(view.x, view.y, view.width, view.height);
  }
}
