// Drawings on canvases. Times count back from now, which is at the right edge.

const HUES = { e: [28, 90], p: [215, 75], d: [145, 65] };
const LIGHTNESS = { text: 52, shared: 40, multimodal: 26 };
const STAGE_LETTERS = { encode: "e", prefill: "p", decode: "d" };
const LABEL_PX = 110;
const ROW_PX = 22;
const BAR_PX = 18;

export function stageColour(letter, group) {
  const [hue, saturation] = HUES[letter];
  return `hsl(${hue} ${saturation}% ${LIGHTNESS[group] ?? LIGHTNESS.shared}%)`;
}

// One row per instance; the stages that it plays share the row's height.
export function drawTimeline(canvas, spans, keptS) {
  const names = [...new Set(spans.map((span) => span.instance))].sort();
  const { pen, width } = prepare(canvas, Math.max(1, names.length) * ROW_PX + 16);
  const x = (sAgo) => LABEL_PX + (width - LABEL_PX) * (1 - sAgo / keptS);
  names.forEach((name, row) => label(pen, name, row * ROW_PX + ROW_PX - 7));
  for (const span of spans) {
    const left = Math.max(LABEL_PX, x(span.since_s_ago));
    const right = Math.max(left + 1, x(span.until_s_ago));
    const slice = BAR_PX / span.roles.length;
    [...span.roles].forEach((letter, index) => {
      pen.fillStyle = stageColour(letter, span.group);
      const top = names.indexOf(span.instance) * ROW_PX + 2 + index * slice;
      pen.fillRect(left, top, right - left, slice);
    });
  }
  for (let minute = 0; minute * 60 <= keptS; minute += 2) {
    label(pen, minute ? `-${minute} min` : "now", names.length * ROW_PX + 12, x(minute * 60) - (minute ? 20 : 28));
  }
}

export function drawQueue(canvas, samples, keptS) {
  const { pen, width, height } = prepare(canvas, 90);
  const most = Math.max(1, ...samples.map((each) => Math.max(each.running, each.waiting)));
  label(pen, `up to ${most}`, 14);
  for (const [key, colour] of [["running", "hsl(215 75% 50%)"], ["waiting", "hsl(0 70% 52%)"]]) {
    pen.strokeStyle = colour;
    pen.beginPath();
    samples.forEach((each, index) => {
      const x = LABEL_PX + (width - LABEL_PX) * (1 - each.s_ago / keptS);
      const y = height - 4 - (height - 8) * (each[key] / most);
      index ? pen.lineTo(x, y) : pen.moveTo(x, y);
    });
    pen.stroke();
  }
}

// A dot per request at its end, on a logarithmic scale; the line is the target.
export function drawTimes(canvas, points, sloMs, keptS) {
  const { pen, width, height } = prepare(canvas, 140);
  const values = [...points.map((point) => Math.max(0.1, point.ms)), sloMs];
  const [low, high] = [Math.log(Math.min(...values) / 1.5), Math.log(Math.max(...values) * 1.5)];
  const y = (ms) => height - (height * (Math.log(Math.max(0.1, ms)) - low)) / (high - low);
  pen.strokeStyle = "hsl(0 70% 52%)";
  pen.beginPath();
  pen.moveTo(0, y(sloMs));
  pen.lineTo(width, y(sloMs));
  pen.stroke();
  label(pen, `target ${sloMs.toFixed(0)} ms`, y(sloMs) - 4);
  for (const point of points) {
    pen.fillStyle = stageColour("p", point.group);
    pen.fillRect(width * (1 - point.s_ago / keptS) - 2, y(point.ms) - 2, 4, 4);
  }
}

export function stepsOf(request) {
  const nowMs = request.end_ms ?? request.age_s * 1000;
  const steps = [
    { name: "prepare", start: 0, end: request.queued_ms },
    { name: "queue", start: request.queued_ms, end: request.dispatched_ms ?? nowMs },
    ...request.stages.map((stage) => ({
      name: `${stage.stage} ${stage.instance}`,
      letter: STAGE_LETTERS[stage.stage],
      start: stage.start_ms,
      end: stage.end_ms,
    })),
    ...transfersOf(request.stages),
  ];
  if (request.first_token_ms !== null) {
    steps.push({ name: "first token", start: request.first_token_ms, end: request.first_token_ms });
  }
  return steps.sort((one, other) => one.start - other.start);
}

// From the end of a stage to the start of the one that waited for it, on another instance.
function transfersOf(stages) {
  const found = [];
  for (const [before, after] of [["encode", "prefill"], ["prefill", "decode"]]) {
    const ends = stages.filter((each) => each.stage === before && !["", "local"].includes(each.transport));
    const first = stages.find((each) => each.stage === after);
    const last = ends.sort((one, other) => other.end_ms - one.end_ms)[0];
    if (first && last && first.start_ms > last.end_ms) {
      found.push({ name: `transfer (${last.transport})`, start: last.end_ms, end: first.start_ms });
    }
  }
  return found;
}

export function drawWaterfall(canvas, request) {
  const steps = stepsOf(request);
  const { pen, width } = prepare(canvas, steps.length * ROW_PX + 4);
  const wholeMs = Math.max(1, ...steps.map((step) => step.end));
  const room = width - 2 * LABEL_PX;
  steps.forEach((step, row) => {
    const left = LABEL_PX + (room * step.start) / wholeMs;
    pen.fillStyle = step.letter ? stageColour(step.letter, request.group) : "hsl(0 0% 55%)";
    pen.fillRect(left, row * ROW_PX + 4, Math.max(2, (room * (step.end - step.start)) / wholeMs), BAR_PX - 4);
    label(pen, step.name, row * ROW_PX + ROW_PX - 7);
    const took = step.name === "first token" ? step.start : step.end - step.start;
    label(pen, `${took.toFixed(1)} ms`, row * ROW_PX + ROW_PX - 7, width - LABEL_PX + 8);
  });
}

function prepare(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.parentElement.clientWidth;
  canvas.height = height * ratio;
  canvas.width = width * ratio;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  return { pen, width, height };
}

function label(pen, text, y, x = 4) {
  pen.fillStyle = getComputedStyle(document.body).color;
  pen.fillText(text, x, y);
}
