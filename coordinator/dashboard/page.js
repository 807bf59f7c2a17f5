// Asks for a snapshot every second and shows it.

import { msText } from "./canvas.js";
import { drawGoodput, drawQueue, drawTimeline, drawTimes } from "./charts.js";
import { showShadow, showTrial } from "./comparisons.js";
import { CACHES, DECISIONS, fillTable, fillTiles, INSTANCES, REQUESTS } from "./tables.js";
import { drawWaterfall } from "./waterfall.js";

const PERIOD_MS = 1000;
const SHOWN_REQUESTS = 20;
const LEAST_SHOWN_S = 60;
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
  element("title").textContent = snapshot.model;
  element("about").textContent =
    `${snapshot.topology} · policy ${snapshot.policy} · up ${upText(snapshot.uptime_s)} · version ${snapshot.version}`;
  const shownS = Math.min(snapshot.kept_s, Math.max(LEAST_SHOWN_S, Math.ceil(snapshot.uptime_s / 30) * 30));
  const ends = snapshot.ends.filter((each) => each.s_ago <= shownS);
  fillTiles(element("tiles"), tilesOf(snapshot, ends));
  const arms = new Map(snapshot.instances.map((each) => [each.id, each.arm]));
  drawTimeline(element("timeline"), snapshot.spans, shownS, arms);
  drawQueue(element("queue"), snapshot.samples, shownS);
  drawGoodput(element("goodput-chart"), ends, shownS);
  element("goodput").textContent = ends.length ? `${percent(goodOf(ends), ends.length)} of ${ends.length} in time` : "";
  const firstTargets = [
    { name: "of text", ms: snapshot.slo_ttft_ms },
    { name: "of pictures", ms: snapshot.slo_multimodal_ttft_ms },
  ];
  showTimes("ttft", "ttft_ms", ends, firstTargets, shownS);
  showTimes("tpot", "tpot_ms", ends, [{ name: "", ms: snapshot.slo_tpot_ms }], shownS);
  showTrial(snapshot.trial, targetTexts(snapshot));
  showShadow(snapshot.shadow);
  const columns = INSTANCES.filter(([name]) => name !== "arm" || snapshot.trial !== null);
  fillTable(element("instances"), columns, inOrder(snapshot.instances, "id"));
  fillTable(element("caches"), CACHES, inOrder(snapshot.caches, "instance"));
  fillTable(element("decisions"), DECISIONS, [...snapshot.decisions].reverse());
  showRequests([...snapshot.requests].reverse());
}

function targetTexts(snapshot) {
  const [text, pictures] = [msText(snapshot.slo_ttft_ms), msText(snapshot.slo_multimodal_ttft_ms)];
  return { ttft: text === pictures ? text : `${text}, ${pictures} of pictures`, tpot: msText(snapshot.slo_tpot_ms) };
}

function tilesOf(snapshot, ends) {
  const [read, cached] = ["prompt_tokens", "cached_tokens"].map((key) => ends.reduce((sum, each) => sum + each[key], 0));
  const good = ends.length ? goodOf(ends) / ends.length : 1;
  return [
    { name: "running", value: snapshot.requests_running, more: `on ${snapshot.instances.length} instances` },
    { name: "waiting", value: snapshot.requests_waiting, more: "for an instance" },
    { name: "finished", value: snapshot.requests_finished, more: `since ${upText(snapshot.uptime_s)} ago` },
    { name: "failed", value: snapshot.requests_failed, more: "", isBad: snapshot.requests_failed > 0 },
    { name: "goodput", value: ends.length ? percent(good, 1) : "–", more: "both targets met", isBad: good < 0.9 },
    { name: "first token", value: rankText(ends, "ttft_ms", 0.5), more: `p99 ${rankText(ends, "ttft_ms", 0.99)}` },
    { name: "per token", value: rankText(ends, "tpot_ms", 0.5), more: `p99 ${rankText(ends, "tpot_ms", 0.99)}` },
    { name: "from caches", value: read ? percent(cached, read) : "–", more: "of prompt tokens" },
  ];
}

function showTimes(name, key, ends, targets, shownS) {
  const points = ends.filter((each) => each[key] !== null).map((each) => ({ ...each, ms: each[key] }));
  drawTimes(element(`${name}-chart`), points, targets, shownS);
  const of = (point) => targets[point.group === "multimodal" ? targets.length - 1 : 0].ms;
  const met = points.filter((point) => point.ms <= of(point)).length;
  element(name).textContent = points.length
    ? `${percent(met, points.length)} of ${points.length} within the target`
    : "";
}

function rankText(ends, key, share) {
  const ordered = ends.map((each) => each[key]).filter((each) => each !== null).sort((one, other) => one - other);
  return ordered.length ? msText(ordered[Math.max(0, Math.ceil(ordered.length * share) - 1)]) : "–";
}

const inOrder = (rows, key) => [...rows].sort((one, other) => (one[key] < other[key] ? -1 : Number(one[key] > other[key])));
const goodOf = (ends) => ends.filter((each) => each.verdict === "good").length;
const percent = (part, whole) => `${Math.round((100 * part) / whole)}%`;
const upText = (s) => (s < 120 ? `${Math.floor(s)} s` : s < 7200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h`);

const numStages = (request) => new Set(request.stages.map((each) => each.stage)).size;

// Of the request that was clicked, else of the newest that passed most stages.
function showRequests(requests) {
  const whole = requests.filter((each) => each.end_ms !== null && each.stages.length > 0);
  const most = Math.max(0, ...whole.map(numStages));
  const shown = requests.find((each) => each.id === chosenId) ?? whole.find((each) => numStages(each) === most);
  const onClick = {
    isChosen: (request) => request === shown,
    choose: (request) => {
      chosenId = request.id === chosenId ? null : request.id;
      showRequests(requests);
    },
  };
  fillTable(element("requests"), REQUESTS, requests.slice(0, SHOWN_REQUESTS), onClick);
  element("chosen").textContent = shown ? `${shown.id} · ${shown.prompt_tokens} tokens in, ${shown.output_tokens} out` : "";
  if (shown !== undefined) drawWaterfall(element("waterfall"), shown);
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
