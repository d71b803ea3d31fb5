/** A table as a file: its parts as they come, then one download. */

const LOST_MS = 20_000; // after which a part is not waited for: a press of the button begins anew

export class File {
  private parts: string[] = [];
  private wanted: number | null = null; // place of the first row of the part that is to come
  private waiting = 0;

  constructor(
    private readonly ask: (start: number) => void,
    private readonly waits: (waits: boolean) => void,
  ) {}

  /** Asks for the parts, from the first on, also where some are still to come: they may be lost. */
  begin(): void {
    this.parts = [];
    this.want(0);
  }

  take(start: number, text: string, next: number | null, name: string): void {
    if (start !== this.wanted) return; // of a file that was begun before
    this.parts.push(text);
    this.want(next);
    if (next !== null) return;
    save(new Blob(this.parts, { type: "text/csv;charset=utf-8" }), name);
    this.parts = [];
  }

  dispose(): void {
    clearTimeout(this.waiting);
  }

  private want(start: number | null): void {
    clearTimeout(this.waiting);
    this.wanted = start;
    this.waits(start !== null);
    if (start === null) return;
    this.ask(start);
    this.waiting = window.setTimeout(() => this.waits(false), LOST_MS);
  }
}

function save(file: Blob, name: string): void {
  const link = document.createElement("a");
  const address = URL.createObjectURL(file);
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
