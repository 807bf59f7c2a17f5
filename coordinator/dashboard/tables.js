// Tables of rows. What comes from clients goes into the page as text, never as markup.

export function fillTable(table, columns, rows, onClick = null) {
  table.replaceChildren(headOf(columns), ...rows.map((row) => rowOf(columns, row, onClick)));
}

function headOf(columns) {
  const head = document.createElement("tr");
  head.append(...columns.map(([name, , kind]) => cell("th", name, kind)));
  return head;
}

function rowOf(columns, row, onClick) {
  const made = document.createElement("tr");
  made.append(...columns.map(([, value, kind]) => cell("td", value(row), kind)));
  if (onClick !== null) {
    made.classList.toggle("chosen", onClick.isChosen(row));
    made.addEventListener("click", () => onClick.choose(row));
  }
  return made;
}

// `stages` are letters, each shown as a tag, an `arm` is one; a `share` is [part, whole, text] with a bar.
function cell(tag, value, kind) {
  const made = document.createElement(tag);
  if (kind === "number") made.className = "number";
  if (tag === "td" && kind === "stages") made.append(...[...value].map(stageTag));
  else if (tag === "td" && kind === "share") made.append(bar(value[1] ? value[0] / value[1] : 0), value[2]);
  else if (tag === "td" && kind === "arm") made.append(...[...value].map(armTag));
  else made.textContent = value;
  return made;
}

function armTag(name) {
  const made = document.createElement("i");
  made.className = `arm-${name}`;
  made.textContent = name;
  return made;
}

function stageTag(letter) {
  const made = document.createElement("i");
  made.className = STAGES[letter];
  made.textContent = STAGES[letter];
  return made;
}

function bar(share) {
  const track = document.createElement("span");
  const fill = document.createElement("span");
  track.className = "track";
  fill.className = "fill";
  fill.style.width = `${Math.round(100 * share)}%`;
  track.append(fill);
  return track;
}

export function fillTiles(list, tiles) {
  list.replaceChildren(
    ...tiles.map(({ name, value, more, isBad }) => {
      const made = document.createElement("li");
      const texts = [["small", name], ["strong", value], ["small", more]];
      made.className = isBad ? "bad" : "";
      made.append(...texts.map(([tag, text]) => cell(tag, text)));
      return made;
    }),
  );
}

const STAGES = { e: "encode", p: "prefill", d: "decode" };
const ms = (value) => (value === null ? "" : `${value.toFixed(1)} ms`);
const figure = (value) => (value === null ? "unbounded" : value.toPrecision(4));
const mib = (value) => (value / 2 ** 20).toFixed(1);

const whose = (arm) => (arm ? `${arm}: ` : "");

export const INSTANCES = [
  ["group", (each) => each.group],
  ["instance", (each) => each.id],
  ["arm", (each) => each.arm, "arm"],
  ["plays", (each) => each.roles, "stages"],
  ["state", (each) => each.state],
  ["device", (each) => each.device],
  ["requests", (each) => each.requests, "number"],
  ["encoding", (each) => `${each.encode_running}+${each.encode_waiting}`, "number"],
  ["prefilling", (each) => `${each.sequences_prefilling} (${each.prefill_waiting_tokens} tokens)`, "number"],
  ["decoding", (each) => each.sequences_decoding, "number"],
  [
    "KV blocks",
    (each) => [each.used_kv_blocks, each.total_kv_blocks, `${each.used_kv_blocks} of ${each.total_kv_blocks}`],
    "share",
  ],
  ["sent MiB", (each) => mib(each.sent_bytes), "number"],
  ["in flight", (each) => each.sends_in_flight, "number"],
];

export const CACHES = [
  ["instance", (each) => each.instance],
  ["pool", (each) => each.pool],
  ["entries", (each) => each.entries, "number"],
  [
    "device MiB",
    (each) => [each.device_bytes, each.device_capacity_bytes, `${mib(each.device_bytes)} of ${mib(each.device_capacity_bytes)}`],
    "share",
  ],
  ["in RAM", (each) => mib(each.host_bytes), "number"],
  ["lookups", (each) => each.lookups, "number"],
  ["hits", (each) => each.hits, "number"],
  ["pulled", (each) => each.pulled, "number"],
  ["saved", (each) => `${each.saved_s.toFixed(1)} s`, "number"],
];

export const REQUESTS = [
  ["request", (each) => each.id],
  ["tenant", (each) => each.tenant],
  ["group", (each) => each.group],
  ["state", (each) => (each.error ? `${each.state}: ${each.error}` : each.state)],
  ["arrived", (each) => `${each.age_s.toFixed(0)} s ago`, "number"],
  ["tokens in", (each) => `${each.prompt_tokens} (${each.cached_tokens} cached)`, "number"],
  ["out", (each) => each.output_tokens, "number"],
  ["first token", (each) => ms(each.first_token_ms), "number"],
  ["per token", (each) => ms(each.tpot_ms), "number"],
  ["total", (each) => ms(each.end_ms), "number"],
];

export const DECISIONS = [
  ["when", (each) => `${each.s_ago.toFixed(1)} s ago`, "number"],
  ["policy", (each) => whose(each.arm) + each.piece],
  ["about", (each) => each.subject],
  ["choice", (each) => each.choice],
  ["weighed", (each) => Object.entries(each.numbers).map(([key, value]) => `${key} ${figure(value)}`).join(", ")],
];

export const ARMS = [
  ["arm", (each) => each.arm, "arm"],
  ["policy set", (each) => each.policy],
  ["instances", (each) => each.instances.join(", ") || "none"],
  ["both targets met", (each) => [each.good, callsOf(each), `${each.good} of ${callsOf(each)}`], "share"],
  ["first token late", (each) => each.late, "number"],
  ["tokens slow", (each) => each.slow, "number"],
  ["unserved", (each) => each.unserved, "number"],
  ["crossed over", (each) => each.crossed, "number"],
  ["instance-seconds", (each) => each.instance_s.toFixed(0), "number"],
];

const callsOf = (arm) => arm.good + arm.late + arm.slow + arm.unserved;

export const MEASURES = [
  ["measure", (each) => each.title],
  ["a", (each) => each.a, "number"],
  ["b", (each) => each.b, "number"],
  ["target", (each) => each.target, "number"],
  ["b − a", (each) => each.change, "number"],
  ["95% interval", (each) => each.interval, "number"],
  ["so far", (each) => each.verdict],
];

export const WANTED = [
  ["instance", (each) => each.instance],
  ["is to play", (each) => each.acting],
  ["the shadow wants", (each) => each.shadow],
];
