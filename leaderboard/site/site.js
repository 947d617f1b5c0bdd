/* The board's controls. DataTables sorts and filters; the address holds the whole view. */
"use strict";

const rows = BOARD;
const MOST = 4;
const FILTERS = ["dataset", "budget", "norm", "eps", "random", "verdict"];
const SVG = "http://www.w3.org/2000/svg";
const form = document.getElementById("view");
const panel = document.getElementById("comparison");
const root = document.documentElement;
const boxes = [...document.querySelectorAll("#board input")];

/** An element with attributes and content; `svg` makes one of a drawing. */
function make(tag, attributes = {}, ...content) {
  const svg = ["svg", "path", "text"].includes(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

const percent = (score) => (score ? (100 * score.value).toFixed(1) : "–");
const ticked = () => boxes.filter((box) => box.checked).map((box) => rows[box.value]);

/* ---- The view and the address ---- */

function save(table) {
  const view = new URLSearchParams();
  for (const name of ["search", ...FILTERS]) view.set(name, form.elements[name].value);
  const [order] = table.order();
  if (order?.[1]) view.set("sort", order.slice(0, 2).join(" "));
  for (const row of ticked()) view.append("compare", row.id);
  history.replaceState(null, "", `#${view}`);
  root.classList.toggle("one-ranking", ["dataset", "budget", "norm", "eps"].every((name) => view.get(name)));
}

function restore(table) {
  const view = new URLSearchParams(location.hash.slice(1));
  // The first ranking, where the address says nothing.
  if (!location.hash && rows.length) show(rows[0]);
  else for (const name of FILTERS) form.elements[name].value = view.get(name) ?? "";
  form.elements.search.value = view.get("search") ?? "";
  const chosen = view.getAll("compare");
  for (const box of boxes) box.checked = chosen.includes(rows[box.value].id);
  const [column, direction] = (view.get("sort") ?? "").split(" ");
  table.order(direction ? [[Number(column), direction]] : []);
  table.search(form.elements.search.value).draw();
  compare();
  save(table);
}

/** Set the filters to a row's ranking. */
function show(row) {
  for (const name of ["dataset", "budget", "norm", "eps"]) form.elements[name].value = row[name];
}

/* ---- The comparison of ticked rows ---- */

function compare() {
  const chosen = ticked();
  for (const box of boxes) box.disabled = !box.checked && chosen.length >= MOST;
  panel.replaceChildren();
  if (chosen.length === 1) panel.append(make("p", {}, "Tick another row to compare the two."));
  if (chosen.length < 2) return;
  const clear = make("button", { type: "button" }, "Clear");
  clear.addEventListener("click", () => {
    for (const box of boxes) box.checked = false;
    form.dispatchEvent(new Event("input"));
  });
  panel.append(make("h2", {}, "Comparison ", clear), differences(chosen));
  if (chosen.some((row) => Object.keys(row.curve).length)) panel.append(curves(chosen));
  panel.append(...matrices(chosen));
}

/** A row's name; with its ranking, where another ticked row is called the same. */
function title(row) {
  const namesakes = ticked().filter((other) => other.label === row.label);
  return namesakes.length > 1 ? `${row.label} (${row.dataset}, ${row.budget}, ${row.norm} ${row.eps})` : row.label;
}

function key(row) {
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = row.color;
  return make("span", {}, swatch, title(row));
}

function differences(chosen) {
  const body = make("tbody");
  chosen.forEach((first, k) => {
    for (const second of chosen.slice(k + 1)) {
      const found = first.leads[rows.indexOf(second) - rows.indexOf(first) - 1];
      const [claimed, worst] = found ?? ["not in one ranking", "not in one ranking"];
      const cells = [worst, claimed].map((text) =>
        make("td", { class: "number" }, text),
      );
      const name = make("th", { scope: "row" }, key(first), " minus ", key(second));
      body.append(make("tr", {}, name, ...cells));
    }
  });
  const heads = ["Rows", "Worst case", "Claimed"].map((text) => make("th", { scope: "col" }, text));
  const caption = make("caption", {}, "Differences in points, paired on the same images, with 95% intervals.");
  const table = make("table", {}, caption, make("thead", {}, make("tr", {}, ...heads)), body);
  return make("div", { class: "scroll", tabindex: 0 }, table);
}

function curves(chosen) {
  const drawn = chosen.filter((row) => Object.keys(row.curve).length);
  const points = (row) => Object.entries(row.curve).map(([eps, pair]) => [Number(eps), ...pair]).sort((a, b) => a[0] - b[0]);
  const widest = Math.max(...drawn.flatMap((row) => points(row).map(([eps]) => eps)));
  const x = (eps) => 40 + (400 * eps) / widest;
  const y = (accuracy) => 210 - 190 * accuracy;
  const image = make("svg", { viewBox: "0 0 560 250", role: "img", class: "curves" });
  image.setAttribute("aria-label", `Robust accuracy against eps of ${drawn.map(title).join(", ")}`);
  for (const share of [0, 0.5, 1]) {
    image.append(make("path", { class: "track", d: `M40 ${y(share)}H440` }));
    image.append(make("text", { x: 34, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}`));
  }
  for (const at of [0, widest]) {
    image.append(make("text", { x: x(at), y: 228, "text-anchor": "middle" }, Number(at.toPrecision(3))));
  }
  image.append(make("text", { x: 240, y: 245, "text-anchor": "middle" }, "eps (pixels in [0, 1])"));
  const ends = [];
  for (const row of drawn) {
    for (const [which, name] of [[1, "claimed"], [2, "worst"]]) {
      const line = points(row).map((point) => `${x(point[0])} ${y(point[which])}`).join("L");
      image.append(make("path", { class: `line ${name}`, d: `M${line}`, stroke: row.color }));
    }
    ends.push([y(points(row).at(-1)[2]), row]);
  }
  let free = Infinity;
  for (const [end, row] of ends.sort((a, b) => b[0] - a[0])) {
    free = Math.min(end, free - 14);
    image.append(make("text", { x: 446, y: free + 4 }, title(row)));
    image.append(make("path", { d: `M441 ${end}L445 ${free}`, stroke: row.color }));
  }
  const caption = make("figcaption", {}, "Robust accuracy in percent: solid in the worst case, dashed as claimed.");
  return make("figure", {}, caption, image);
}

/** (members, images) of whether each is right, of a row. */
function answers(row) {
  const bytes = Uint8Array.from(atob(row.correct), (letter) => letter.charCodeAt(0));
  const right = (bit) => (bytes[bit >> 3] >> (7 - (bit & 7))) & 1;
  const [members, images] = row.shape;
  return Array.from({ length: members }, (_, member) =>
    Array.from({ length: images }, (_, image) => right(member * images + image)),
  );
}

function matrices(chosen) {
  const first = answers(chosen[0]);
  const count = Math.min(...chosen.map((row) => row.shape[1]));
  const total = (image) => first.reduce((sum, member) => sum + member[image], 0);
  const order = [...Array(count).keys()].sort((a, b) => total(b) - total(a) || a - b);
  return chosen.filter(() => count).map((row) => {
    const matrix = answers(row);
    const [members] = row.shape;
    const canvas = make("canvas", { width: count, height: members, role: "img" });
    const hit = matrix.flatMap((member) => member.slice(0, count)).reduce((a, b) => a + b, 0);
    const share = ((100 * hit) / (count * members)).toFixed(1);
    const text = `${members} ${members > 1 ? "members or draws" : "network"} (rows) of seed ${row.seed} on ${count} images (columns, in the order of ${title(chosen[0])}): ${share}% right`;
    canvas.setAttribute("aria-label", `${title(row)}: ${text}`);
    canvas.style.height = `${Math.max(24, Math.min(96, 8 * members))}px`;
    const context = canvas.getContext("2d");
    context.fillStyle = row.color;
    matrix.forEach((member, line) => order.forEach((image, column) => {
      if (member[image]) context.fillRect(column, line, 1, 1);
    }));
    return make("figure", {}, make("figcaption", {}, key(row), `: ${text}`), canvas);
  });
}

/* ---- Downloads of what is shown ---- */

const FIELDS = ["dataset", "budget", "norm", "eps", "rank", "label", "random", "networks", "clean", "claimed", "worst", "verdict"];
const flat = (value) => (Array.isArray(value) ? value.join("–") : value?.value !== undefined ? percent(value) : (value ?? "–"));
const latex = (text) => String(text).replace(/[&%$#_{}~^\\]/g, (letter) => ({ "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\\": "\\textbackslash{}" })[letter] ?? `\\${letter}`);

const FORMATS = {
  csv(shown) {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const names = FIELDS.flatMap((name) => ["claimed", "worst"].includes(name) ? [name, `${name} low`, `${name} high`] : [name]);
    const lines = shown.map((row) => FIELDS.flatMap((name) => {
      const { low, high } = row[name] ?? {};
      const ends = ["claimed", "worst"].includes(name) ? [low, high].map((end) => percent({ value: end })) : [];
      return [flat(row[name]), ...ends];
    }));
    return [names, ...lines].map((cells) => `${cells.map(quoted).join(",")}\r\n`).join("");
  },
  json(shown) {
    return JSON.stringify(shown.map((row) => Object.fromEntries(FIELDS.map((name) => [name, row[name]]))), null, 1);
  },
  tex(shown) {
    const columns = ["rank", "label", "clean", "claimed", "worst", "verdict"];
    const lines = shown.map((row) => `${columns.map((name) => latex(flat(row[name]))).join(" & ")} \\\\`);
    return ["\\begin{tabular}{llrrrl}", "\\hline", `${columns.join(" & ")} \\\\`, "\\hline", ...lines, "\\hline", "\\end{tabular}", ""].join("\n");
  },
  bib(shown) {
    const papers = new Map(shown.map((row) => [row.reference, row.defense]));
    return [...papers].map(([reference, defense]) => {
      const id = reference.match(/^arXiv:(\S+)/)?.[1];
      const fields = id ? `  eprint = {${id}},\n  archivePrefix = {arXiv},\n  url = {https://arxiv.org/abs/${id}},\n` : "";
      return `@misc{${defense},\n${fields}  note = {${latex(reference)}; the defense ${defense}}\n}\n`;
    }).join("\n");
  },
};

function download(format, shown) {
  const url = URL.createObjectURL(new Blob([FORMATS[format](shown)], { type: "text/plain" }));
  make("a", { href: url, download: `leaderboard.${format}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/* ---- Light and dark ---- */

function paint(dark) {
  root.style.colorScheme = dark ? "dark" : "light";
  root.classList.toggle("dark", dark);
}

/* ---- Start ---- */

(async () => {
  root.classList.add("scripting");
  paint(matchMedia("(prefers-color-scheme: dark)").matches);
  document.getElementById("theme").addEventListener("click", () => paint(!root.classList.contains("dark")));
  const { default: DataTable } = await import(URL.createObjectURL(MODULE));
  DataTable.ext.search.push((_settings, _cells, number) =>
    FILTERS.every((name) => !form.elements[name].value || form.elements[name].value === String(rows[number][name])),
  );
  const table = new DataTable("#board", {
    paging: false,
    order: [],
    autoWidth: false,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: "info" },
    language: { zeroRecords: "No row matches. “All rows” clears the filters.", info: "_TOTAL_ of _MAX_ rows", infoFiltered: "", infoEmpty: "" },
  });
  restore(table);
  const changed = () => {
    table.search(form.elements.search.value).draw();
    compare();
    save(table);
  };
  form.elements.dataset.addEventListener("input", ({ target }) => {
    const first = rows.find((row) => row.dataset === target.value);
    if (first) show(first);
  });
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  table.on("order", () => save(table));
  document.querySelector("#board tbody").addEventListener("change", changed);
  addEventListener("hashchange", () => restore(table));
  for (const button of document.querySelectorAll(".downloads button")) {
    button.addEventListener("click", () =>
      download(button.value, table.rows({ search: "applied", order: "applied" }).indexes().toArray().map((number) => rows[number])),
    );
  }
  root.dataset.ready = performance.now();
})();
