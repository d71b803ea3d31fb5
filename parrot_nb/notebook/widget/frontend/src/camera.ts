/** Where one looks: pan by dragging, zoom by the wheel with ctrl, or by buttons. */

const LEAST = 0.03;
const MOST = 1.6;
const CALM_MS = 260;

export class Camera {
  x = 0;
  y = 0;
  scale = 1;
  /** Whether the user has taken hold of it: then it no longer follows the graph. */
  held = false;
  /** Size of the frame, as last measured: asking the page while it is being written costs a layout each time. */
  private width = 0;
  private height = 0;
  private dragged: { x: number; y: number; moved: boolean } | null = null;

  constructor(
    private readonly frame: HTMLElement,
    private readonly stage: HTMLElement,
    private readonly moved: () => void,
  ) {
    frame.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    frame.addEventListener("pointerdown", (event) => this.down(event));
    frame.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"] as const) frame.addEventListener(end, () => this.up());
    // A drag that began on a card must not open it.
    frame.addEventListener("click", (event) => this.dragged?.moved && event.stopPropagation(), true);
  }

  measure(): void {
    [this.width, this.height] = [this.frame.clientWidth, this.frame.clientHeight];
  }

  /** Shows a stretch of the stage, as large as it fits but no smaller than `least`. */
  fit(width: number, height: number, least: number, calm: boolean): void {
    this.measure();
    const { width: w, height: h } = this;
    if (!w || !h || !width || !height) return;
    this.scale = Math.max(LEAST, least, Math.min(1, w / width, h / height));
    this.x = Math.max(0, (w - width * this.scale) / 2);
    this.y = (h - height * this.scale) / 2; // what is too high begins in the middle: there the first calls stand
    this.show(calm);
  }

  zoom(factor: number, at = { x: this.width / 2, y: this.height / 2 }, calm = true): void {
    const scale = Math.min(MOST, Math.max(LEAST, this.scale * factor));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.held = true;
    this.show(calm);
  }

  /** Moves as little as needed for a box of the stage to be in sight. */
  reveal(box: { x: number; y: number; width: number; height: number }): void {
    const pad = 32; // clear of the edge, where what goes on fades
    const [left, top] = [box.x * this.scale + this.x, box.y * this.scale + this.y];
    const [right, bottom] = [left + box.width * this.scale, top + box.height * this.scale];
    const { width: w, height: h } = this;
    const dx = left < pad ? pad - left : right > w - pad ? Math.max(w - pad - right, pad - left) : 0;
    const dy = top < pad ? pad - top : bottom > h - pad ? Math.max(h - pad - bottom, pad - top) : 0;
    if (!dx && !dy) return;
    this.x += dx;
    this.y += dy;
    this.show(true);
  }

  /** The part of the stage that is in sight. */
  get view(): { x: number; y: number; width: number; height: number } {
    const { scale } = this;
    return { x: -this.x / scale, y: -this.y / scale, width: this.width / scale, height: this.height / scale };
  }

  /** Looks at a point of the stage, as somebody asked for. */
  center(x: number, y: number): void {
    this.x = this.width / 2 - x * this.scale;
    this.y = this.height / 2 - y * this.scale;
    this.held = true;
    this.show(false);
  }

  /** Whether a box of the stage is in sight. */
  sees(box: { x: number; y: number; width: number; height: number }): boolean {
    const [left, top] = [box.x * this.scale + this.x, box.y * this.scale + this.y];
    return (
      left < this.width &&
      top < this.height &&
      left + box.width * this.scale > 0 &&
      top + box.height * this.scale > 0
    );
  }

  private show(calm: boolean): void {
    this.stage.classList.toggle("pg-calm", calm);
    if (calm) setTimeout(() => this.stage.classList.remove("pg-calm"), CALM_MS);
    this.stage.style.setProperty("--pg-scale", this.scale.toFixed(3));
    this.stage.style.transform = `translate(${this.x}px,${this.y}px) scale(${this.scale})`;
    this.moved();
  }

  private wheel(event: WheelEvent): void {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    const box = this.frame.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY * 0.0022), { x: event.clientX - box.x, y: event.clientY - box.y }, false);
  }

  private down(event: PointerEvent): void {
    if (event.button === 0) this.dragged = { x: event.clientX, y: event.clientY, moved: false };
  }

  private drag(event: PointerEvent): void {
    const drag = this.dragged;
    if (!drag || !(event.buttons & 1)) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    if (!drag.moved) this.frame.setPointerCapture(event.pointerId);
    Object.assign(drag, { x: event.clientX, y: event.clientY, moved: true });
    this.held = true;
    this.x += dx;
    this.y += dy;
    this.frame.classList.add("pg-dragged");
    this.show(false);
  }

  private up(): void {
    this.frame.classList.remove("pg-dragged");
    setTimeout(() => (this.dragged = null)); // after the click that ends the drag
  }
}
