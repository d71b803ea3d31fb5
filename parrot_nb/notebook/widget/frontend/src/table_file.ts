/** A table as a file: its parts as they come, then one download. */

export class File {
  private parts: string[] = [];
  private busy = false;

  constructor(private readonly ask: (start: number) => void) {}

  begin(): void {
    if (this.busy) return;
    this.busy = true;
    this.parts = [];
    this.ask(0);
  }

  /** Takes a part; returns whether it was the last. */
  take(text: string, next: number | null, name: string): boolean {
    if (!this.busy) return true;
    this.parts.push(text);
    if (next !== null) {
      this.ask(next);
      return false;
    }
    this.busy = false;
    save(new Blob(this.parts, { type: "text/csv;charset=utf-8" }), name);
    this.parts = [];
    return true;
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
