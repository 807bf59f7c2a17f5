// Runs the page's script without a browser: elements that remember, canvases that count.
//   node page_in_node.mjs FOLDER < {"status": …, "body": …, "stored": …, "typed": [ … ]}     prints what the page shows, as JSON
import { readFileSync } from "node:fs";

const reply = JSON.parse(readFileSync(0, "utf8"));
const elements = {};
const asked = [];

function pen(made) {
  const draw = { fillRect: () => made.rects++, fillText: (text) => made.labels.push(text) };
  return new Proxy(draw, { get: (target, name) => target[name] ?? (() => {}), set: () => true });
}

function make() {
  const made = { textContent: "", children: [], listeners: {}, style: {}, rects: 0, labels: [], width: 0, height: 0 };
  made.append = (...more) => made.children.push(...more);
  made.replaceChildren = (...more) => (made.children = more);
  made.addEventListener = (kind, listener) => (made.listeners[kind] = listener);
  made.classList = { toggle: () => {} };
  made.parentElement = { clientWidth: 800 };
  made.getContext = () => pen(made);
  return made;
}

globalThis.document = { getElementById: (id) => (elements[id] ??= make()), createElement: make, body: {} };
globalThis.window = { devicePixelRatio: 2, matchMedia: () => ({ matches: false }) };
globalThis.getComputedStyle = () => ({ color: "black" });
const stored = reply.stored === null ? {} : { key: reply.stored };
globalThis.sessionStorage = { getItem: (key) => stored[key] ?? null, setItem: (key, value) => (stored[key] = value) };
globalThis.fetch = async (url, { headers }) => {
  asked.push([url, headers.authorization]);
  return { status: reply.status, ok: reply.status === 200, json: async () => reply.body };
};
const later = [];
globalThis.setTimeout = (callback) => later.push(callback);

const settled = () => new Promise((resolve) => setImmediate(resolve)); // all promises that can be kept are
await import(`${process.argv[2]}/page.js`);
await settled();
for (const key of reply.typed) {
  document.getElementById("key").value = key;
  elements.login.listeners.submit({ preventDefault: () => {} });
  await settled();
}
const rows = (id) => (elements[id]?.children ?? []).map((row) => row.children.map((each) => String(each.textContent)));
elements.requests?.children[1]?.listeners.click();
console.log(
  JSON.stringify({
    asked,
    typedLeft: elements.key?.value,
    numWaiting: later.length,
    trouble: elements.trouble.textContent,
    needsLogin: elements.login.hidden === false,
    title: elements.title?.textContent,
    tiles: (elements.tiles?.children ?? []).map((tile) => tile.children.map((each) => String(each.textContent))),
    goodputRects: elements["goodput-chart"]?.rects,
    ttft: elements.ttft?.textContent,
    requests: rows("requests"),
    instances: rows("instances"),
    decisions: rows("decisions"),
    sections: Object.fromEntries(["trial", "shadow"].map((id) => [id, elements[id]?.hidden === false])),
    trialAbout: elements["trial-about"]?.textContent,
    arms: rows("arms"),
    measures: rows("measures"),
    shadowAbout: elements["shadow-about"]?.textContent,
    shadowTiles: rows("shadow-tiles"),
    wanted: rows("wanted"),
    shadowDecisions: rows("shadow-decisions"),
    timelineRects: elements.timeline?.rects,
    waterfall: elements.waterfall?.labels,
  }),
);
