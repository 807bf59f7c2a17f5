// Asks for a snapshot every second and shows it.

import { drawQueue, drawTimeline, drawTimes, drawWaterfall } from "./charts.js";
import { CACHES, DECISIONS, fillTable, INSTANCES, REQUESTS } from "./tables.js";

const PERIOD_MS = 1000;
const SHOWN_REQUESTS = 30;
const element = (id) => document.getElementById(id);
let chosenId = null;

async function look() {
  const key = sessionStorage.getItem("key");
  if (key === null) return askForKey("");
  try {
    const reply = await fetch("/dashboard/snapshot.json", { headers: { authorization: `Bearer ${key}` } });
    if (reply.status === 401 || reply.status === 403) return askForKey((await reply.json()).error);
    if (!reply.ok) throw new Error((await reply.json()).error);
    show(await reply.json());
    element("trouble").textContent = "";
  } catch (error) {
    element("trouble").textContent = error.message;
  }
  setTimeout(look, PERIOD_MS);
}

// Nothing more is asked for until there is another: each refusal is written down.
function askForKey(reason) {
  element("trouble").textContent = reason;
  element("login").hidden = false;
}

function show(snapshot) {
  element("main").hidden = false;
  element("title").textContent = `${snapshot.model}: ${snapshot.topology}, policy ${snapshot.policy}`;
  element("counts").textContent =
    `${snapshot.requests_running} running, ${snapshot.requests_waiting} waiting, ` +
    `${snapshot.requests_finished} finished, ${snapshot.requests_failed} failed`;
  drawTimeline(element("timeline"), snapshot.spans, snapshot.kept_s);
  drawQueue(element("queue"), snapshot.samples, snapshot.kept_s);
  showTimes("ttft", "first_token_ms", snapshot, snapshot.slo_ttft_ms);
  showTimes("tpot", "tpot_ms", snapshot, snapshot.slo_tpot_ms);
  fillTable(element("instances"), INSTANCES, snapshot.instances);
  fillTable(element("caches"), CACHES, snapshot.caches);
  fillTable(element("decisions"), DECISIONS, [...snapshot.decisions].reverse());
  showRequests([...snapshot.requests].reverse());
}

function showTimes(name, key, snapshot, sloMs) {
  const points = snapshot.requests
    .filter((each) => each.end_ms !== null && each[key] !== null)
    .map((each) => ({ ms: each[key], group: each.group, s_ago: each.age_s - each.end_ms / 1000 }))
    .filter((point) => point.s_ago <= snapshot.kept_s);
  drawTimes(element(`${name}-chart`), points, sloMs, snapshot.kept_s);
  const ordered = points.map((point) => point.ms).sort((one, other) => one - other);
  const rank = (percent) => ordered[Math.max(0, Math.ceil((ordered.length * percent) / 100) - 1)];
  const met = ordered.filter((value) => value <= sloMs).length;
  element(name).textContent = ordered.length
    ? [50, 90, 99].map((percent) => `p${percent} ${rank(percent).toFixed(1)} ms`).join(", ") +
      `; ${Math.round((100 * met) / ordered.length)}% of ${ordered.length} within the target`
    : "";
}

function showRequests(requests) {
  const onClick = {
    isChosen: (request) => request.id === chosenId,
    choose: (request) => {
      chosenId = request.id === chosenId ? null : request.id;
      showRequests(requests);
    },
  };
  fillTable(element("requests"), REQUESTS, requests.slice(0, SHOWN_REQUESTS), onClick);
  const chosen = requests.find((each) => each.id === chosenId);
  if (chosen !== undefined) drawWaterfall(element("waterfall"), chosen);
  else element("waterfall").height = 0;
}

element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = element("key").value.trim();
  element("key").value = "";
  if (!/^[ -~]+$/.test(key)) return askForKey("no key looks like that");
  sessionStorage.setItem("key", key);
  element("login").hidden = true;
  look();
});
look();
