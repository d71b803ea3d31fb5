// Shows %%semantic cells as prompts: the editor of such a cell is told that its text is a Jinja template, so that
// apostrophes are no strings, nothing is indented by itself, and {{placeholders}} stand out. Other cells stay as they are.
//
// JupyterLab loads this file as it stands: it is a module-federation container, written by hand, with one module. What
// it needs of JupyterLab (the token that names the open notebooks) it takes from the scope that the page shares.

(() => {
  "use strict";

  const MIME = "text/jinja2";
  const PROMPT = /^\s*%%semantic(?=\s|$)/;
  const OPENING_CHARS = 4000; // of a cell, in which its first line is looked for

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

  /** @param {object} tracker of the open notebooks */
  function activate(_app, tracker) {
    tracker.widgetAdded.connect((_, panel) => watchNotebook(panel));
    tracker.forEach(watchNotebook);
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
      const plugin = {
        id: "parrot-nb:prompt-cells",
        description: "Shows %%semantic cells as prompts.",
        autoStart: true,
        requires: [INotebookTracker],
        activate,
      };
      return () => ({ __esModule: true, default: plugin });
    },
  };
  (window._JUPYTERLAB = window._JUPYTERLAB || {})["parrot-nb"] = container;
})();
