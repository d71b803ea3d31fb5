// Bundles src/ into the modules of ../static, with digests in their first lines by which a test tells whether they are current.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "..", "static");
const MODULES = { graph: "main.ts", table: "table.ts" };
const BUNDLED = ["@dagrejs/dagre", "@dagrejs/graphlib"];

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest("hex");

/** Style sheets become texts, minified: the module puts them into the page itself. */
const styles = {
  name: "styles",
  setup({ onLoad }) {
    onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(readFileSync(path, "utf8"), { loader: "css", minify: true });
      return { contents: code, loader: "text" };
    });
  },
};

/**
 * dagre comes as one file with all of graphlib in it, held there by objects that list every name. They keep the names that are
 * read, so that the rest falls away: a tenth of the module.
 */
const unread = {
  name: "unread",
  setup({ onLoad }) {
    onLoad({ filter: /dagre\.esm\.js$/ }, ({ path }) => {
      const listed = /[\w$]+\(([\w$]+),\{((?:[\w$]+:\(\)=>[\w$]+,?)+)\}\);/g;
      let found = 0;
      const source = readFileSync(path, "utf8");
      const contents = source.replace(listed, (_, object, names) => {
        const used = new RegExp(`\\{([\\w$:,]+)\\}=${object}\\b`).exec(source)?.[1] ?? "";
        const read = used.split(",").map((pair) => pair.split(":")[0]);
        const kept = names.split(",").map((name) => name.split(":()=>")).filter(([name]) => read.includes(name));
        found++;
        return `Object.assign(${object},{${kept.map((pair) => pair.join(":")).join()}});`;
      });
      if (found !== 3) throw new Error("dagre's file has another shape than it had: look what `unread` is to do.");
      return { contents, loader: "js" };
    });
  },
};

const sources = readdirSync(join(HERE, "src")).map((name) => `src/${name}`);
sources.push("build.mjs", "package.json", "package-lock.json", "tsconfig.json");
const digest = sha256(...sources.sort().flatMap((name) => [`${name}\0`, readFileSync(join(HERE, name)), "\0"]));
mkdirSync(STATIC, { recursive: true });
for (const [name, entry] of Object.entries(MODULES)) {
  const { outputFiles } = await build({
    entryPoints: [join(HERE, "src", entry)],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    write: false,
    plugins: [styles, unread],
  });
  const body = outputFiles[0].text;
  const bundled = name === "graph" ? " bundled: see LICENSES.txt;" : "";
  writeFileSync(join(STATIC, `${name}.js`), `/*! parrot_nb ${name};${bundled} sources ${digest}; body ${sha256(body)} */\n${body}`);
  console.log(`${name}.js: ${(body.length / 1000).toFixed(1)} kB`);
}

const notes = BUNDLED.map((name) => {
  const folder = join(HERE, "node_modules", name);
  const { version, license, homepage, repository } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const home = homepage ?? repository?.url ?? "";
  const licence = readFileSync(join(folder, "LICENSE"), "utf8").trim();
  return `${name} ${version} (${license})\n${home}\n\n${licence}\n`;
});
writeFileSync(join(STATIC, "LICENSES.txt"), `graph.js holds, besides our own code:\n\n${notes.join(`\n${"-".repeat(78)}\n\n`)}`);
