/** The few ways in which elements are made. */

type Child = Node | string;

/** An element with attributes and children; `class` is the class name, a function is a listener. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number | boolean | ((event: Event) => void)> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

export function svg(tag: string, attributes: Record<string, string | number> = {}): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/** Sets a text only where it differs: an assignment always costs a layout. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Drawn on a field of 16 by 16, by lines of 1.6.
const SHAPES = {
  pending: '<circle cx="8" cy="8" r="5.6" stroke-dasharray="2.2 2.2"/>',
  running: '<circle cx="8" cy="8" r="5.6" opacity=".28"/><path d="M8 2.4a5.6 5.6 0 0 1 5.6 5.6"/>',
  done: '<circle cx="8" cy="8" r="5.6"/><path d="m5.4 8.2 1.9 1.9 3.4-3.9"/>',
  failed: '<circle cx="8" cy="8" r="5.6"/><path d="M8 4.9v3.6M8 10.9v.2"/>',
  cancelled: '<circle cx="8" cy="8" r="5.6"/><path d="m4.2 11.8 7.6-7.6"/>',
  unrun: '<circle cx="8" cy="8" r="5.6" stroke-dasharray="2.2 2.2"/><path d="M5.5 8h5"/>',
  semantic: '<path d="M3 3.5h10v7H8l-3 2.6v-2.6H3z"/>',
  native: '<path d="m5.5 4.5-3.3 3.5 3.3 3.5M10.5 4.5l3.3 3.5-3.3 3.5"/>',
  join: '<path d="M2.5 4h2c3 0 3 4 6 4h3M2.5 12h2c3 0 3-4 6-4M11.4 5.9 13.6 8l-2.2 2.1"/>',
  first: '<path d="M4 14V2.6M4 3h8.4l-2 2.7 2 2.7H4"/>',
  plus: '<path d="M8 3v10M3 8h10"/>',
  minus: '<path d="M3 8h10"/>',
  fit: '<path d="M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10"/>',
  stop: '<rect x="4" y="4" width="8" height="8" rx="1.2"/>',
  close: '<path d="m4 4 8 8M12 4l-8 8"/>',
  copy: '<rect x="5.5" y="5.5" width="8" height="8" rx="1.4"/><path d="M3.5 10.5h-.2a.8.8 0 0 1-.8-.8V3.300a.8.8 0 0 1 .8-.8h6.400a.8.8 0 0 1 .8.8v.2"/>',
  save: '<path d="M8 2.500v7.500M4.900 7.200 8 10.300l3.100-3.100M2.800 13.300h10.400"/>',
  fold: '<path d="M8 2v4M5.8 4.2 8 6.400l2.2-2.200M8 14v-4M5.8 11.8 8 9.600l2.2 2.2"/>',
  unfold: '<path d="M8 6V2.200M5.8 4.4 8 2.200l2.2 2.200M8 10v3.800M5.8 11.6 8 13.800l2.2-2.2"/>',
} as const;

export type IconName = keyof typeof SHAPES;

export function icon(name: IconName): SVGElement {
  const element = svg("svg", { viewBox: "0 0 16 16", class: `pg-svg pg-svg-${name}`, "aria-hidden": "true" });
  element.innerHTML = SHAPES[name];
  return element;
}

export function button(name: IconName, label: string, act: () => void, words?: string): HTMLButtonElement {
  return h("button", { type: "button", class: "pg-button", title: label, "aria-label": label, click: act }, icon(name), words ?? "");
}
