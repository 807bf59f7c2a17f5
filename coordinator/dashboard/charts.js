// Drawings of the cluster. Times count back from now, which is at the right edge.

import { area, LABEL_PX, label, line, msText, prepare, timeAxis } from "./canvas.js";
import { colour, stageColour } from "./colours.js";

const ROW_PX = 24;
const BAR_PX = 18;
const AXIS_PX = 18;
const CHART_PX = 160;
const NUM_BUCKETS = 60;
export const VERDICTS = ["good", "late", "slow"];

// One row per instance, those of an arm together; the stages that it plays share the row's height.
export function drawTimeline(canvas, spans, shownS, arms) {
  const armOf = (name) => arms.get(name) ?? "";
  const key = (name) => `${armOf(name)}\n${name}`;
  const names = [...new Set(spans.map((span) => span.instance))].sort((one, other) => (key(one) < key(other) ? -1 : 1));
  const bottom = Math.max(1, names.length) * ROW_PX;
  const { pen, width } = prepare(canvas, bottom + AXIS_PX);
  const x = timeAxis(pen, width, bottom, shownS);
  names.forEach((name, row) => {
    label(pen, name, 0, row * ROW_PX + 16, { tone: "ink" });
    if (armOf(name)) label(pen, armOf(name), LABEL_PX - 8, row * ROW_PX + 16, { align: "right", tone: `arm-${armOf(name)}` });
  });
  for (const span of spans.filter((each) => each.until_s_ago <= shownS)) {
    const left = x(span.since_s_ago);
    const right = Math.max(left + 1, x(span.until_s_ago) - 1);
    const slice = BAR_PX / span.roles.length;
    [...span.roles].forEach((letter, index) => {
      pen.fillStyle = stageColour(letter, span.group);
      const top = names.indexOf(span.instance) * ROW_PX + 3 + index * slice;
      pen.fillRect(left, top, right - left, slice);
    });
  }
}

export function drawQueue(canvas, samples, shownS) {
  const { pen, width } = prepare(canvas, CHART_PX);
  const bottom = CHART_PX - AXIS_PX;
  const x = timeAxis(pen, width, bottom, shownS);
  const shown = samples.filter((each) => each.s_ago <= shownS);
  const most = Math.max(1, ...shown.map((each) => Math.max(each.running, each.waiting)));
  label(pen, `${most}`, LABEL_PX - 8, 14, { align: "right" });
  label(pen, "0", LABEL_PX - 8, bottom, { align: "right" });
  for (const key of ["running", "waiting"]) {
    const points = shown.map((each) => [x(each.s_ago), bottom - (bottom - 8) * (each[key] / most)]);
    area(pen, colour(key), points, bottom);
  }
}

// Bars of requests by when they ended and how they met the targets.
export function drawGoodput(canvas, ends, shownS) {
  const { pen, width } = prepare(canvas, CHART_PX);
  const bottom = CHART_PX - AXIS_PX;
  const x = timeAxis(pen, width, bottom, shownS);
  const bucketS = shownS / NUM_BUCKETS;
  const counts = bucketsOf(ends, bucketS);
  const most = Math.max(1, ...counts.map((bucket) => VERDICTS.reduce((sum, verdict) => sum + bucket[verdict], 0)));
  label(pen, `${(most / bucketS).toFixed(1)}/s`, LABEL_PX - 8, 14, { align: "right" });
  label(pen, "0", LABEL_PX - 8, bottom, { align: "right" });
  counts.forEach((bucket, index) => {
    const [left, right] = [x((index + 1) * bucketS) + 0.5, x(index * bucketS) - 0.5];
    let top = bottom;
    for (const verdict of VERDICTS) {
      const height = ((bottom - 8) * bucket[verdict]) / most;
      pen.fillStyle = colour(verdict);
      if (height) pen.fillRect(left, (top -= height), Math.max(1, right - left), height);
    }
  });
}

export function bucketsOf(ends, bucketS) {
  const counts = Array.from({ length: NUM_BUCKETS }, () => ({ good: 0, late: 0, slow: 0 }));
  for (const each of ends) {
    const bucket = counts[Math.floor(each.s_ago / bucketS)];
    if (bucket !== undefined) bucket[each.verdict] += 1;
  }
  return counts;
}

// A dot per request at its end, on a logarithmic scale; the lines are the targets.
export function drawTimes(canvas, points, targets, shownS) {
  const { pen, width } = prepare(canvas, CHART_PX);
  const bottom = CHART_PX - AXIS_PX;
  const x = timeAxis(pen, width, bottom, shownS);
  const values = [...points.map((point) => Math.max(0.1, point.ms)), ...targets.map((target) => target.ms)];
  const [low, high] = [Math.log(Math.min(...values) / 1.5), Math.log(Math.max(...values) * 1.5)];
  const y = (ms) => bottom - (bottom * (Math.log(Math.max(0.1, ms)) - low)) / (high - low);
  for (let ms = 0.1; ms <= 1e7; ms *= 10) {
    if (Math.log(ms) > low && Math.log(ms) < high) {
      line(pen, colour("line"), [[LABEL_PX, y(ms)], [width, y(ms)]]);
      label(pen, msText(ms), LABEL_PX - 8, y(ms) + 4, { align: "right" });
    }
  }
  pen.globalAlpha = 0.75;
  for (const point of points.filter((each) => each.s_ago <= shownS)) {
    pen.fillStyle = stageColour("p", point.group === "text" ? "text" : "shared");
    pen.beginPath();
    pen.arc(x(point.s_ago), y(point.ms), 2.5, 0, 2 * Math.PI);
    pen.fill();
  }
  pen.globalAlpha = 1;
  pen.setLineDash([5, 4]);
  for (const target of distinct(targets)) {
    line(pen, colour("late"), [[LABEL_PX, y(target.ms)], [width, y(target.ms)]]);
    label(pen, `target${target.name} ${msText(target.ms)}`, LABEL_PX + 6, y(target.ms) - 5, { tone: "late" });
  }
  pen.setLineDash([]);
}

// Targets that are the same need one line, and no name.
function distinct(targets) {
  const values = new Set(targets.map((target) => target.ms));
  if (values.size === 1) return [{ name: "", ms: targets[0].ms }];
  return targets.map((target) => ({ name: ` ${target.name}`, ms: target.ms }));
}
