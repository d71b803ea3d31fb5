/** Where in the page a graph belongs: over its still picture, for as long as that is there.
 *
 * The picture is an output of Jupyter's, drawn anew when its last state comes; the graph stands beside it in the same
 * output, so that it keeps focus and scroll, and hides it.
 */

interface Events {
  mounted(): void;
  removed(): void;
  signal: AbortSignal;
}

const PATIENCE_MS = 60_000;
const OUTPUT = ".jp-OutputArea-output";

/** Puts `element` over the picture that carries `mark`, now (then returns true) or as soon as it appears. */
export function whenFound(mark: string, element: HTMLElement, events: Events): boolean {
  if (mount(mark, element, events)) return true;
  let asked = 0;
  const watcher = new MutationObserver(() => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      if (mount(mark, element, events)) watcher.disconnect();
    });
  });
  watcher.observe(document.body, { childList: true, subtree: true });
  setTimeout(() => watcher.disconnect(), PATIENCE_MS); // after a reload of the page no picture will ever carry the mark
  events.signal.addEventListener("abort", () => watcher.disconnect());
  return false;
}

function mount(mark: string, element: HTMLElement, { mounted, removed, signal }: Events): boolean {
  const picture = document.querySelector(`[data-parrot-view="${mark}"]`);
  const output = picture?.closest<HTMLElement>(OUTPUT) ?? picture?.parentElement;
  const child = output?.parentElement;
  if (!output || !child) return false;
  element.classList.add(...(output.matches(OUTPUT) ? ["jp-OutputArea-output"] : []));
  output.style.display = "none";
  output.after(element);
  mounted();
  // A cell that is scrolled away leaves the page as a whole; an output that is cleared leaves its cell.
  const area = child.parentElement;
  const watcher = new MutationObserver(() => {
    if (child.parentElement === area && output.parentElement === child) return;
    watcher.disconnect();
    element.remove();
    removed();
  });
  if (area) watcher.observe(area, { childList: true });
  watcher.observe(child, { childList: true });
  signal.addEventListener("abort", () => {
    watcher.disconnect();
    element.remove();
    output.style.display = ""; // the picture says the rest
  });
  return true;
}
