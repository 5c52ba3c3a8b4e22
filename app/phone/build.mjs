/**
 * Bundles the page, the model's thread and the service worker: `node build.mjs FOLDER`.
 *
 * Leaves in FOLDER all that the app needs but the model bundle and `precache.js`, which `symptomchat phone` adds.
 */

import { chmod, cp, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

import { build } from "esbuild";

const output = process.argv[2];
if (!output) throw new Error("build.mjs: name the folder to write");
const here = import.meta.dirname;
const packages = path.join(here, "node_modules");

await build({
  entryPoints: ["page", "worker", "sw"].map((name) => path.join(here, "src", `${name}.js`)),
  outdir: output,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  logLevel: "warning",
});
await cp(path.join(here, "static"), output, { recursive: true });

const wasm = path.join(output, "wasm");
await mkdir(wasm, { recursive: true });
// Of the builds of LiteRT.js the one without relaxed SIMD and threads: it runs in every browser and on every host, and
// it computes the same everywhere, bit for bit, so that no answer is flagged on one phone and not on the other.
for (const kind of ["js", "wasm"]) {
  const target = path.join(wasm, `litert.${kind}`);
  await cp(path.join(packages, "@litertjs/core/wasm", `litert_wasm_compat_internal.${kind}`), target);
  await chmod(target, 0o644);
}

const { dependencies } = JSON.parse(await readFile(path.join(here, "package.json"), "utf8"));
const used = [];
for (const name of [...Object.keys(dependencies), "@litertjs/wasm-utils"]) {
  const { version, license } = JSON.parse(await readFile(path.join(packages, name, "package.json"), "utf8"));
  used.push(`${name} ${version}: ${license}`);
}
const text = await readFile(path.join(packages, "@huggingface/tokenizers/LICENSE"), "utf8");
await writeFile(path.join(output, "licences.txt"), `Libraries in this app:\n${used.join("\n")}\n\n${text}`);
