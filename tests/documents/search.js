// Runs the search of a built site as a browser does: node search.js SITE, with one query per line on the standard input.
// Prints one JSON list per query: the addresses of the first hits.
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const site = process.argv[2];
const element = () => ({ dataset: {}, appendChild: (child) => child, addEventListener: () => {}, classList: { add: () => {} } });
const document = {
  documentElement: { dataset: { content_root: "./" } },
  readyState: "loading", // doctools.js waits
  body: element(),
  addEventListener: () => {},
  createElement: element,
  getElementById: () => null,
};
const context = vm.createContext({ console, document, URLSearchParams, localStorage: { setItem: () => {} }, SPHINX_HIGHLIGHT_ENABLED: false });
context.window = context;
const files = ["documentation_options", "doctools", "language_data", "searchtools"].map((name) => path.join(site, "_static", `${name}.js`));
for (const file of [...files, path.join(site, "searchindex.js")]) {
  const text = fs.readFileSync(file, "utf8");
  // constants of a script are global in a browser
  vm.runInContext(text.replace(/^const (\w+) = /gm, "var $1 = "), context, { filename: file });
}
for (const query of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  context.query = query;
  const found = vm.runInContext("Search._performSearch(...Search._parseQuery(query))", context);
  const hits = found.slice().reverse().map((hit) => `${hit[0]}${hit[2] || ""}`);
  console.log(JSON.stringify(hits.slice(0, 10)));
}
