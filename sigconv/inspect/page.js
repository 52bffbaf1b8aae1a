"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const side = document.getElementById("side");
const boxes = new Map([...document.querySelectorAll(".box")].map((b) => [Number(b.dataset.i), b]));
const edges = [...document.querySelectorAll(".edge")];
const count = (n) => (n === null || n === undefined ? "?" : n.toLocaleString("en"));
const micro = (s) => (s === null ? "" : s >= 1e-3 ? (s * 1e3).toPrecision(3) + " ms" : (s * 1e6).toPrecision(3) + " µs");

function element(tag, text, kind) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text; // names come from a file: never markup
  if (kind) e.className = kind;
  return e;
}

function table(rows) {
  const t = element("table");
  for (const [name, value] of rows) {
    if (value === "" || value === null || value === undefined) continue;
    const row = t.insertRow();
    row.append(element("th", name), element("td", value));
  }
  return t;
}

function mark(i) {
  for (const [k, b] of boxes) b.classList.toggle("chosen", k === i);
  for (const e of edges) e.classList.toggle("chosen", Number(e.dataset.a) === i || Number(e.dataset.b) === i);
}

function choose(i, scroll) {
  mark(i);
  const node = data.nodes[i];
  side.replaceChildren(element("h2", node.op), element("p", node.name, "sub"));
  const link = element("a", "← all nodes");
  link.href = "#";
  link.onclick = (event) => { event.preventDefault(); overview(); };
  side.prepend(link);
  side.append(table([
    ["output", node.shape + (node.dtype ? " " + node.dtype : "")],
    ["parameters", node.parameters ? count(node.parameters) : ""],
    ["MACs", node.macs === 0 ? "" : count(node.macs)],
    ["sees", node.field],
    ["memory", node.nbytes === null ? "" : count(node.nbytes) + " bytes"],
    ["algorithm", node.algorithm],
    ["because", node.reason],
    ["runs with", node.group.join(", ")],
    ["time", node.seconds === null ? "" : micro(node.seconds) + (node.group.length ? " for all of them" : "")],
  ]));
  if (node.attrs.length) side.append(element("b", "Attributes"), table(node.attrs));
  if (node.inputs.length) side.append(element("b", "Inputs"), table(node.inputs));
  if (node.outputs.length) side.append(element("b", "Outputs"), table(node.outputs));
  if (node.rejected.length) side.append(element("b", "Not chosen"), table(node.rejected));
  if (scroll) boxes.get(i).scrollIntoView({ block: "center", inline: "center" });
}

function overview() {
  mark(-1);
  side.replaceChildren(element("h2", data.profiled ? "Where the time goes" : "The largest nodes"));
  side.append(element("p", "Choose a node, here or in the graph.", "hint"));
  const value = (n) => (data.profiled ? n.share : n.macs || 0);
  const order = data.nodes.map((n, i) => [n, i]).filter(([n]) => !n.end && value(n) > 0);
  order.sort((a, b) => value(b[0]) - value(a[0]));
  const most = order.length ? value(order[0][0]) : 1;
  const t = element("table");
  for (const [node, i] of order.slice(0, 60)) {
    const row = t.insertRow();
    row.className = "row";
    row.onclick = () => choose(i, true);
    const what = row.insertCell();
    what.append(element("div", (data.profiled ? node.together : node.op) + "  " + node.shape), element("div", node.short, "hint"));
    const bar = element("div", undefined, "bar");
    bar.style.width = (100 * value(node)) / most + "%";
    what.append(bar);
    const number = element("td", data.profiled ? micro(node.seconds) : count(node.macs), "n");
    row.append(number);
  }
  side.append(t);
}

document.getElementById("search").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  let first = null;
  for (const [i, b] of boxes) {
    const node = data.nodes[i];
    const hit = !wanted || [node.op, node.name, node.shape, node.algorithm].some((s) => s.toLowerCase().includes(wanted));
    b.classList.toggle("dim", !hit);
    if (hit && wanted && first === null) first = b;
  }
  if (first) first.scrollIntoView({ block: "center", inline: "center" });
});

const drawing = document.querySelector("#graph svg");
document.getElementById("zoom").addEventListener("input", (event) => {
  drawing.setAttribute("width", drawing.dataset.width * event.target.value);
  drawing.setAttribute("height", drawing.dataset.height * event.target.value);
});

for (const [i, b] of boxes) b.addEventListener("click", () => choose(i, false));
const asked = Number(location.hash.slice(1)); // page.html#7 opens at node 7
if (location.hash && boxes.has(asked)) {
  choose(asked, true);
} else {
  overview();
  boxes.get(0).scrollIntoView({ block: "nearest", inline: "center" });
}
document.body.dataset.ready = "yes";
