// A second policy set beside the first: in a trial, or in the shadow. Sections are shown while there is one.

import { msText } from "./canvas.js";
import { ARMS, DECISIONS, fillTable, fillTiles, MEASURES, WANTED } from "./tables.js";

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const perSecond = (rate) => `${rate.toPrecision(3)}/s`;
const seconds = (s) => `${s.toFixed(1)} s`;
const timeText = (s) => msText(s * 1000);

// What a measure is called, how it reads, and whether more of it is better.
const KINDS = {
  attainment: { title: "both targets met", text: percent, isMoreBetter: true },
  ttft_p50_s: { title: "first token, median", text: timeText, target: "ttft" },
  ttft_p95_s: { title: "first token, p95", text: timeText, target: "ttft" },
  tpot_p50_s: { title: "per token, median", text: timeText, target: "tpot" },
  tpot_p95_s: { title: "per token, p95", text: timeText, target: "tpot" },
  goodput_rps: { title: "goodput", text: perSecond, isMoreBetter: true },
  goodput_per_instance_rps: { title: "goodput per instance", text: perSecond, isMoreBetter: true },
  instance_s_per_thousand: { title: "instance-seconds per thousand requests", text: seconds },
};

export function showTrial(trial, targets) {
  element("trial").hidden = trial === null;
  if (trial === null) return;
  const [a, b] = trial.arms;
  element("trial-about").textContent =
    `${b.policy} (b) on ${Math.round(100 * trial.share)}% of the instances beside ${a.policy} (a), ` +
    `for ${Math.floor(trial.watched_s)} s, experiment ${trial.experiment}`;
  fillTable(element("arms"), ARMS, trial.arms);
  fillTable(element("measures"), MEASURES, trial.measures.map((each) => measureRow(each, targets)));
}

export function measureRow(measure, targets) {
  const { title, text, target, isMoreBetter = false } = KINDS[measure.name];
  const shown = (value) => (value === null ? "–" : text(value));
  const signed = (value) => (value < 0 ? `−${text(-value)}` : `+${text(value)}`);
  const { change, low, high } = measure;
  return {
    title,
    a: shown(measure.a),
    b: shown(measure.b),
    target: target === undefined ? "" : targets[target],
    change: change === null ? "–" : signed(change),
    interval: change === null ? "" : `${signed(low)} to ${signed(high)}`,
    verdict: change === null ? "too little was measured" : verdictOf(low, high, isMoreBetter),
  };
}

// As far as the interval of B minus A says.
function verdictOf(low, high, isMoreBetter) {
  if (low <= 0 && high >= 0) return "not told apart";
  return low > 0 === isMoreBetter ? "b is better" : "a is better";
}

export function showShadow(shadow) {
  element("shadow").hidden = shadow === null;
  if (shadow === null) return;
  const stopped = shadow.failure ? `, stopped: ${shadow.failure}` : "";
  element("shadow-about").textContent = `${shadow.policy}, for ${Math.floor(shadow.watched_s)} s${stopped}`;
  fillTiles(element("shadow-tiles"), shadowTiles(shadow));
  element("wanted").hidden = shadow.wanted.length === 0;
  fillTable(element("wanted"), WANTED, shadow.wanted);
  fillTable(element("shadow-decisions"), DECISIONS, [...shadow.decisions].reverse());
}

function shadowTiles(shadow) {
  const differing = shadow.elsewhere + shadow.held;
  const first = (s) => (s === null ? "–" : timeText(s));
  return [
    {
      name: "dispatches that differ",
      value: shadow.compared ? percent(differing / shadow.compared) : "–",
      more: `of ${shadow.compared} compared, ${shadow.skipped} skipped`,
    },
    {
      name: "would go elsewhere",
      value: shadow.elsewhere,
      more: `encode ${shadow.other_encode}, prefill ${shadow.other_prefill}, decode ${shadow.other_decode}`,
    },
    { name: "would wait", value: shadow.held, more: "for an instance" },
    {
      name: "first token, as predicted",
      value: first(shadow.shadow_first_s),
      more: `${first(shadow.acting_first_s)} by the acting set, of ${shadow.predicted}`,
    },
    { name: "changes of stages", value: shadow.shadow_changes, more: `${shadow.acting_changes} by the acting set` },
    { name: "time it took", value: shadow.spent_s === null ? "–" : timeText(shadow.spent_s), more: "of the coordinator's" },
  ];
}
