// Shows %%semantic cells as prompts: the editor of such a cell is told that its text is a Jinja template, so that
// apostrophes are no strings and nothing is indented by itself; the first line, inputs and outputs have colours, and what
// is no input or output of the prompt is red. Other cells stay as they are.
// And it tells pictures, which cannot see the page's variables, whether the page is dark; and it brings a few commands.
//
// JupyterLab loads this file as it stands: it is a module-federation container, written by hand, with one module. What
// it needs of JupyterLab (the token that names the open notebooks) it takes from the scope that the page shares.

(() => {
  "use strict";

  const MIME = "text/jinja2";
  const PROMPT = /^\s*%%semantic(?=\s|$)/;
  const OPENING_CHARS = 4000; // of a cell, in which its first line is looked for
  const STYLE = `
    body[data-jp-theme-light="true"] .parrot-picture { color-scheme: light; }
    body[data-jp-theme-light="false"] .parrot-picture { color-scheme: dark; }
    .parrot-magic, .parrot-magic * { color: var(--jp-ui-font-color2) !important; }
    .parrot-literal, .parrot-literal * { color: var(--jp-ui-font-color1) !important; }
    .parrot-reads, .parrot-reads * { color: color-mix(in srgb, var(--jp-brand-color1) 60%, var(--jp-ui-font-color1)) !important; }
    .parrot-writes, .parrot-writes * { color: color-mix(in srgb, var(--jp-success-color1) 60%, var(--jp-ui-font-color1)) !important; }
    .parrot-unknown, .parrot-unknown * { color: color-mix(in srgb, var(--jp-error-color1) 60%, var(--jp-ui-font-color1)) !important; }
    .parrot-unknown { text-decoration: underline wavy var(--jp-error-color1); }`;
  const PLACEHOLDER = /\\?\{\{(?:[^{}"']|"[^"]*"|'[^']*')*\}\}/g;
  const LONGEST_CHARS = 100_000; // of a prompt whose placeholders are looked for

  /**
   * Keeps the kind of one cell right, whoever changes it: the user by typing, or JupyterLab when a kernel says its language.
   *
   * @param {object} model of a code cell
   * @param {() => string} usual the kind of the notebook's code cells
   */
  function watch(model, usual) {
    const update = () => {
      const isPrompt = PROMPT.test(model.sharedModel.getSource().slice(0, OPENING_CHARS));
      if (isPrompt && model.mimeType !== MIME) model.mimeType = MIME;
      else if (!isPrompt && model.mimeType === MIME) model.mimeType = usual();
    };
    model.contentChanged.connect(update);
    model.mimeTypeChanged.connect(update);
    update();
  }

  /** @param {object} panel a notebook that was opened */
  function watchNotebook(panel) {
    const notebook = panel.content;
    const seen = new WeakSet();
    const usual = () => notebook.codeMimetype;
    const watchCells = () => {
      for (const model of notebook.model?.cells ?? []) {
        if (model.type === "code" && !seen.has(model)) {
          seen.add(model);
          watch(model, usual);
        }
      }
    };
    const watchList = () => {
      notebook.model?.cells.changed.connect(watchCells);
      watchCells();
    };
    notebook.modelChanged.connect(watchList);
    watchList();
  }

  /**
   * The parts of a prompt that have a colour, in order.
   *
   * @param {string} text of a cell that begins with %%semantic
   * @returns {{from: number, to: number, kind: string}[]}
   */
  function parts(text) {
    const begin = text.search(/\S/);
    const end = text.indexOf("\n", begin) < 0 ? text.length : text.indexOf("\n", begin);
    const line = text.slice(begin, end).split(" --")[0];
    const names = (list) => list?.split(",").map((item) => item.match(/[^\W\d]\w*/)?.[0]);
    const [written, read] = [names(line.match(/->(.*)/)?.[1]), names(line.match(/\(([^)]*)\)/)?.[1])];
    const found = [{ from: begin, to: end, kind: "magic" }];
    for (const match of text.slice(0, LONGEST_CHARS).matchAll(PLACEHOLDER)) {
      if (match.index < end) continue;
      if (match[0].startsWith("\\")) {
        found.push({ from: match.index, to: match.index + match[0].length, kind: "literal" });
        continue;
      }
      const said = match[0].match(/^\{\{\s*(?:(input|output)\s*:)?\s*(\w+)\s*(:?)/);
      const [role, name] = said ? [said[1] ?? (written?.includes(said[2]) ? "output" : "input"), said[2]] : [];
      // Without a list of names on the first line any name will do; a type belongs to an output.
      const known = role === "output" ? !written || written.includes(name) : !read || read.includes(name) || written?.includes(name);
      const kind = !said || !known || (role === "input" && said[3]) ? "unknown" : role === "output" ? "writes" : "reads";
      found.push({ from: match.index, to: match.index + match[0].length, kind });
    }
    return found.filter(({ from, to }) => from < to);
  }

  /** An extension of the editor that colours prompts. @param view, state CodeMirror's modules */
  function colours(view, state) {
    const marks = {};
    for (const kind of ["magic", "literal", "reads", "writes", "unknown"]) marks[kind] = view.Decoration.mark({ class: `parrot-${kind}` });
    const drawn = (document) => {
      const builder = new state.RangeSetBuilder();
      if (PROMPT.test(document.sliceString(0, OPENING_CHARS)))
        for (const { from, to, kind } of parts(document.toString())) builder.add(from, to, marks[kind]);
      return builder.finish();
    };
    return view.ViewPlugin.define(
      (editor) => ({
        decorations: drawn(editor.state.doc),
        update(change) {
          if (change.docChanged) this.decorations = drawn(change.state.doc);
        },
      }),
      { decorations: (plugin) => plugin.decorations },
    );
  }

  /** @param {object} tracker of the open notebooks */
  function activate(_app, tracker) {
    const style = document.createElement("style");
    style.textContent = STYLE;
    document.head.append(style);
    tracker.widgetAdded.connect((_, panel) => watchNotebook(panel));
    tracker.forEach(watchNotebook);
  }

  const NEW_PROMPT = "%%semantic write(topic) -> text\nWrite about {{input:topic}}.\n{{output:text}}";
  /** Commands by id: what the palette calls each, and the cell that it makes below the active one, run unless it is a prompt. */
  const CELLS = {
    "parrot-nb:new-prompt": ["New Prompt Cell", NEW_PROMPT],
    "parrot-nb:graph": ["Show the Graph of Calls", "%parrot graph"],
    "parrot-nb:timeline": ["Show the Timeline", "%parrot timeline"],
    "parrot-nb:calls": ["List Calls and Values", "%parrot vars"],
  };

  /** Adds the commands, and puts them into the palette where there is one. */
  function addCommands({ commands }, tracker, palette) {
    const isEnabled = () => tracker.currentWidget !== null;
    const add = (id, label, execute) => {
      commands.addCommand(id, { label, isEnabled, execute, describedBy: { args: { type: "object", properties: {} } } });
      palette?.addItem({ command: id, category: "Parrot" });
    };
    for (const [id, [label, source]] of Object.entries(CELLS))
      add(id, label, async () => {
        await commands.execute("notebook:insert-cell-below");
        tracker.activeCell.model.sharedModel.setSource(source);
        if (source !== NEW_PROMPT) await commands.execute("notebook:run-cell");
      });
    add("parrot-nb:cancel", "Cancel All Calls", async () => {
      const kernel = tracker.currentWidget.sessionContext.session?.kernel;
      await kernel?.requestExecute({ code: "%parrot cancel", silent: true }).done;
    });
  }

  let shared;

  /** A module of JupyterLab's own. @param {string} name */
  async function moduleOf(name) {
    const [version] = Object.values(shared[name]);
    return (await version.get())();
  }

  const container = {
    init(scope) {
      shared = scope;
    },
    async get(_module) {
      const { INotebookTracker } = await moduleOf("@jupyterlab/notebook");
      const { IEditorExtensionRegistry, EditorExtensionRegistry } = await moduleOf("@jupyterlab/codemirror");
      const [view, state] = [await moduleOf("@codemirror/view"), await moduleOf("@codemirror/state")];
      const { ICommandPalette } = await moduleOf("@jupyterlab/apputils");
      const palette = {
        id: "parrot-nb:commands",
        description: "Commands for prompts, graphs and timelines.",
        autoStart: true,
        requires: [INotebookTracker],
        optional: [ICommandPalette],
        activate: addCommands,
      };
      const cells = {
        id: "parrot-nb:prompt-cells",
        description: "Shows %%semantic cells as prompts.",
        autoStart: true,
        requires: [INotebookTracker],
        activate,
      };
      const editors = {
        id: "parrot-nb:prompt-colours",
        description: "Colours the placeholders of prompts.",
        autoStart: true,
        requires: [IEditorExtensionRegistry],
        activate(_app, registry) {
          const extension = EditorExtensionRegistry.createImmutableExtension(colours(view, state));
          registry.addExtension({ name: "parrot-nb-prompts", factory: () => extension });
        },
      };
      return () => ({ __esModule: true, default: [cells, editors, palette] });
    },
  };
  (window._JUPYTERLAB = window._JUPYTERLAB || {})["parrot-nb"] = container;
})();
