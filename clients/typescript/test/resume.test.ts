/** Runs against a coordinator that decodes, at ELASTICMM_SERVED_ADDRESS, with a key of ELASTICMM_API_KEY. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import { Cancelled, Client, ElasticMMError, InvalidRequest, NotRunning, ServerError, Unavailable } from "../src/index.js";
import { Resumption, type AnswerCalls } from "../src/resuming.js";
import { BreakingWire } from "./wire.js";

const address = process.env["ELASTICMM_SERVED_ADDRESS"] ?? "";
const options = { skip: address === "" && "ELASTICMM_SERVED_ADDRESS names no cluster" };
// So long that 300 bytes of it are never all, however many tokens come in one event.
const LONG = { maxTokens: 300, seed: 1 };

function connect(t: TestContext, at = address): Client {
  const client = new Client(at, { apiKey: process.env["ELASTICMM_API_KEY"] ?? "" });
  t.after(() => client.close());
  return client;
}

/** A client whose connections break after so many bytes each. */
async function connectThrough(t: TestContext, ...bounds: number[]): Promise<[Client, BreakingWire]> {
  const wire = new BreakingWire(address, bounds);
  const client = connect(t, await wire.open());
  t.after(() => wire.close());
  return [client, wire];
}

test("goes on after each cut", options, async (t) => {
  const whole = await connect(t).generate("hi", LONG).result();
  const [client, wire] = await connectThrough(t, 300, 300);
  const stream = client.generate("hi", { ...LONG, resumableS: 100 });
  const kinds: string[] = [];
  for await (const event of stream) kinds.push(event.kind);
  const result = await stream.result();
  assert.deepEqual(result.tokenIds, whole.tokenIds);
  assert.equal(result.text, whole.text);
  assert.equal(kinds.filter((kind) => kind === "accepted").length, 1);
  assert.equal(wire.numConnections, 3);
});

test("without it a cut is an error", options, async (t) => {
  const [client] = await connectThrough(t, 300);
  await assert.rejects(client.generate("hi", LONG).result(), (error) => {
    assert.ok(error instanceof ElasticMMError);
    return error.isLostCall;
  });
});

test("another client goes on from a token on", options, async (t) => {
  const whole = await connect(t).generate("hi", { ...LONG, requestId: "mine", resumableS: 100 }).result();
  const [client, wire] = await connectThrough(t, 300);
  const rest = await client.resume("mine", 100).result();
  assert.deepEqual(rest.tokenIds, whole.tokenIds.slice(100));
  assert.equal(rest.requestId, "mine");
  assert.equal(wire.numConnections, 2);
  await assert.rejects(client.resume("mine", 301).text(), refusal("OUT_OF_RANGE"));
  await assert.rejects(client.resume("other").text(), refusal("NOT_FOUND"));
});

test("whoever reads is taken over from", options, async (t) => {
  const client = connect(t);
  const first = client.generate("hi", { ...LONG, requestId: "taken", resumableS: 100, ignoreEos: true })[
    Symbol.asyncIterator
  ]();
  await first.next();
  const rest = client.resume("taken");
  const outcomes = await Promise.allSettled([rest.result(), drain(first)]);
  assert.equal(outcomes[0].status, "fulfilled");
  if (outcomes[1].status === "rejected") assert.equal((outcomes[1].reason as ServerError).code, "ABORTED");
});

test("cancel, and leaving the loop, stop the work", options, async (t) => {
  const client = connect(t);
  const cancelled = client.generate("hi", { ...LONG, requestId: "cancelled", resumableS: 100 });
  for await (const event of cancelled) if (event.kind === "tokens") cancelled.cancel();
  await assert.rejects(cancelled.result(), Cancelled);
  await assert.rejects(client.resume("cancelled").text(), refusal("NOT_FOUND"));
  for await (const event of client.generate("hi", { ...LONG, requestId: "left", resumableS: 100 })) {
    if (event.kind === "tokens") break;
  }
  await assert.rejects(client.resume("left").text(), refusal("NOT_FOUND"));
});

test("nobody there is told at once", async (t) => {
  await assert.rejects(connect(t, "127.0.0.1:1").generate("hi", { resumableS: 100 }).text(), NotRunning);
});

test("a loss is tried again with growing pauses for so long", () => {
  const loss = lost();
  const resumption = new Resumption({} as AnswerCalls, 10);
  const pauses = Array.from({ length: 20 }, () => resumption.pauseMs(loss, 100_000, true));
  assert.deepEqual(pauses, [...pauses].sort((one, other) => one - other));
  assert.deepEqual([pauses[0], pauses[19]], [50, 2000]);
  const gone = new InvalidRequest("no such answer", "request_id", "NOT_FOUND");
  assert.ok(resumption.isUnknown(gone));
  for (const [error, nowMs] of [[lost(), 110_500], [gone, 101_000]] as const) {
    assert.throws(() => resumption.pauseMs(error, nowMs, true), (thrown) => thrown === loss);
  }
  resumption.noteEvent();
  assert.ok(!resumption.isUnknown(gone));
  assert.equal(resumption.pauseMs(lost(), 111_000, true), 50);
});

function lost(): Unavailable {
  const error = new Unavailable("connection dropped", "UNAVAILABLE");
  error.isLostCall = true;
  return error;
}

function refusal(code: string): (error: unknown) => boolean {
  return (error) => error instanceof InvalidRequest && error.code === code;
}

async function drain(events: AsyncIterator<unknown>): Promise<void> {
  while (!(await events.next()).done);
}
