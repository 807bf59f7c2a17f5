// Where the time of one request went: queue, stages on their instances, ways between them, first token.

import { label, line, msText, prepare } from "./canvas.js";
import { colour, stageColour } from "./colours.js";

const ROW_PX = 24;
const BAR_PX = 12;
const NAME_PX = 150;
const TIME_PX = 84;
const FIRST_SHARE = 0.65; // of the width, up to the first token: decodes are long
const STAGE_LETTERS = { encode: "e", prefill: "p", decode: "d" };

export function stepsOf(request) {
  const nowMs = request.end_ms ?? request.age_s * 1000;
  const steps = [
    { name: "prepare", start: 0, end: request.queued_ms },
    { name: "queue", start: request.queued_ms, end: request.dispatched_ms ?? nowMs },
    ...request.stages.map((stage) => ({
      name: `${stage.stage} · ${stage.instance}`,
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
      found.push({ name: `transfer · ${last.transport}`, start: last.end_ms, end: first.start_ms });
    }
  }
  return found;
}

export function drawWaterfall(canvas, request) {
  const steps = stepsOf(request);
  const { pen, width, height } = prepare(canvas, steps.length * ROW_PX + 4);
  const wholeMs = Math.max(1, ...steps.map((step) => step.end));
  const x = scale(request.first_token_ms, wholeMs, width - NAME_PX - TIME_PX);
  for (const ms of [0, request.first_token_ms ?? wholeMs, wholeMs]) line(pen, colour("line"), [[x(ms), 0], [x(ms), height]]);
  steps.forEach((step, row) => {
    const middle = row * ROW_PX + ROW_PX / 2 + 2;
    pen.fillStyle = step.letter ? stageColour(step.letter, "shared") : colour(step.name === "first token" ? "late" : "wait");
    pen.fillRect(x(step.start), middle - BAR_PX / 2, Math.max(2, x(step.end) - x(step.start)), BAR_PX);
    label(pen, step.name, 0, middle + 4, { tone: "ink" });
    const took = step.name === "first token" ? step.start : step.end - step.start;
    label(pen, msText(took), width, middle + 4, { align: "right" });
  });
}

// Two scales, where what comes after the first token would leave no room for what came before.
function scale(firstMs, wholeMs, room) {
  const usual = (ms) => NAME_PX + (room * ms) / wholeMs;
  if (!firstMs || firstMs >= wholeMs * FIRST_SHARE) return usual;
  const rest = (ms) => FIRST_SHARE + ((1 - FIRST_SHARE) * (ms - firstMs)) / (wholeMs - firstMs);
  return (ms) => NAME_PX + room * (ms <= firstMs ? (FIRST_SHARE * ms) / firstMs : rest(ms));
}
