/** Runs against a cluster that echoes, at ELASTICMM_ADDRESS (see tests/clients/fake_cluster.py). */
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import {
  Cancelled,
  Client,
  DeadlineExceeded,
  InvalidRequest,
  NotRunning,
  Overloaded,
  userMessage,
  type Event,
  type Format,
  type GenerateOptions,
  type Message,
  type Part,
  type PictureBound,
} from "../src/index.js";

interface ArrivedPart {
  image?: { digest?: string; maxPixels?: number };
}

const address = process.env["ELASTICMM_ADDRESS"] ?? "";
let client: Client;
before(() => {
  assert.notEqual(address, "", "ELASTICMM_ADDRESS names no cluster");
  client = new Client(address);
});
after(() => client.close());

test("streams events in order", async () => {
  const events: Event[] = [];
  for await (const event of client.generate("hé!", { seed: 2n ** 64n - 1n })) events.push(event);
  assert.deepEqual(
    events.map((event) => event.kind),
    ["accepted", "tokens", "tokens", "tokens", "finished"],
  );
  assert.equal(events.map((event) => event.text).join(""), "hé!");
  assert.equal(events[0]?.kind === "accepted" && events[0].seed, 2n ** 64n - 1n);
});

test("gathers the result", async () => {
  const result = await client.generate("abc", { logprobs: 1 }).result();
  assert.deepEqual(result.tokenIds, [97, 98, 99]);
  assert.deepEqual([result.text, result.finishReason, result.stopString], ["abc", "stop", "!"]);
  assert.deepEqual(result.usage, {
    promptTokens: 7,
    completionTokens: 3,
    mediaTokens: 4,
    cachedTokens: 2,
    cachedMedia: 1,
  });
  assert.deepEqual(result.stages, [
    { stage: "prefill", instance: "p-0", startMs: 1.5, endMs: 9, transport: "shm" },
  ]);
  assert.deepEqual(
    result.logprobs.map((each) => each.top[0]?.tokenId),
    [97, 98, 99],
  );
  assert.ok(result.ttftMs !== undefined && result.tpotMs !== undefined);
});

test("sends options", async () => {
  assert.equal(await client.generate("abcdef", { maxTokens: 2, temperature: 0.5, stop: "x", deadlineS: 9 }).text(), "ab");
});

test("uploads pictures by bytes and path, passes URLs on", async () => {
  const path = join(mkdtempSync(join(tmpdir(), "elasticmm-")), "a.png");
  writeFileSync(path, Buffer.alloc(3_000_000, 7));
  const message = userMessage("x", path, new Uint8Array([1, 2, 3]), "https://example.com/a.png");
  assert.equal(await client.generate([message]).text(), "x###");
});

test("bounds the pixels that are read of a picture", async () => {
  const url = "https://example.com/a.png";
  const image = Buffer.from("bounded");
  const content: Part[] = [
    { type: "image", image, maxPixels: 1 },
    { type: "image", url, maxPixels: 2 ** 32 - 1 },
    { type: "image", url, detail: "low" },
    { type: "image_url", image_url: { url, detail: "low" } },
    { type: "image_url", image_url: { url, detail: "auto" } },
    { type: "image", image, detail: "high" },
    { type: "text", text: "request" },
  ];
  const [message] = (await arrived([{ role: "user", content }], {}))["messages"] as { parts: ArrivedPart[] }[];
  assert.deepEqual(
    message?.parts.map((part) => part.image?.maxPixels),
    [1, 2 ** 32 - 1, 2 ** 18, 2 ** 18, undefined, undefined, undefined],
  );
  assert.ok(message?.parts[0]?.image?.digest);
});

test("refuses a bound that is none", async () => {
  const cases: [PictureBound, string][] = [
    [{ maxPixels: 0 }, "max_pixels"],
    [{ maxPixels: 2 ** 32 }, "max_pixels"],
    [{ maxPixels: 1.5 }, "max_pixels"],
    [{ maxPixels: 1, detail: "low" }, "max_pixels"],
    [{ detail: "tiny" as "low" }, "detail"],
  ];
  for (const [bound, name] of cases) {
    const content: Part[] = [{ type: "image", url: "https://example.com/a.png", ...bound }];
    const wrong = client.generate([{ role: "user", content }]).text();
    const field = `messages[0].parts[0].image.${name}`;
    await assert.rejects(wrong, (error) => error instanceof InvalidRequest && error.field === field);
  }
});

test("uploads again what the gateway lost", async () => {
  const message = userMessage("x", Buffer.from("lost"));
  await client.generate([message]).text();
  await client.generate("forget uploads").text();
  assert.equal(await client.generate([message]).text(), "x#");
});

test("uploads a picture for each tenant", async () => {
  const message = userMessage("x", Buffer.from("of a tenant"));
  for (const tenant of ["a", "b", "a"]) assert.equal(await client.generate([message], { tenant }).text(), "x#");
});

test("says who may share its cache entries", async () => {
  assert.equal(await client.generate("cache", { cacheScope: "cluster", cacheSalt: "s" }).text(), "CACHE_SCOPE_CLUSTER s");
  assert.equal(await client.generate("cache").text(), "CACHE_SCOPE_UNSPECIFIED ");
  const wrong = client.generate("x", { cacheScope: "all" as "none" });
  await assert.rejects(wrong.text(), (error) => error instanceof InvalidRequest && error.field === "cache_scope");
});

/** The request as it arrived, in protobuf's JSON. */
async function arrived(messages: string | Message[], options: GenerateOptions): Promise<Record<string, unknown>> {
  return JSON.parse(await client.generate(messages, options).text()) as Record<string, unknown>;
}

test("sends a raw prompt in the place of messages", async () => {
  const text = await arrived([], { prompt: "as it is" });
  assert.deepEqual([text["prompt"], text["messages"]], [{ text: "as it is" }, undefined]);
  assert.deepEqual((await arrived([], { prompt: [1, 2, 3] }))["prompt"], { tokenIds: { ids: [1, 2, 3] } });
  assert.deepEqual((await arrived([], { prompt: [] }))["prompt"], { tokenIds: {} });
});

test("sends formats", async () => {
  const cases: [Format, object][] = [
    ["json_object", { jsonObject: true }],
    [{ jsonSchema: { type: "object" } }, { jsonSchema: '{"type":"object"}' }],
    [{ jsonSchema: "{}" }, { jsonSchema: "{}" }],
    [{ regex: "a+" }, { regex: "a+" }],
    [{ grammar: "start: A" }, { grammar: "start: A" }],
  ];
  for (const [format, wire] of cases) assert.deepEqual((await arrived("request", { format }))["format"], wire);
});

test("sends tools, biases and how long to keep the answer", async () => {
  const parameters = { type: "object" };
  const named = { name: "other" };
  const request = await arrived("request", {
    tools: [{ name: "f", description: "does", parameters }, { type: "function", function: named }],
    logitBias: { 5: -1.5, 4294967295: 2 },
    requestId: "r",
    tenant: "t",
    resumableS: 1.5,
  });
  assert.deepEqual(request["tools"], [{ name: "f", description: "does", parameters: '{"type":"object"}' }, named]);
  assert.deepEqual(request["sampling"], { logitBias: { "5": -1.5, "4294967295": 2 } });
  assert.deepEqual([request["requestId"], request["tenant"], request["resumable"]], ["r", "t", "1.500s"]);
});

test("a resumable request has an id of its own", async () => {
  const ids = [await arrived("request", { resumableS: 1 }), await arrived("request", { resumableS: 1 })];
  assert.match(String(ids[0]?.["requestId"]), /^[0-9a-f-]{36}$/);
  assert.notEqual(ids[0]?.["requestId"], ids[1]?.["requestId"]);
  assert.equal((await arrived("request", { resumableS: 0 }))["requestId"], undefined);
});

test("sends tool calls and their answers", async () => {
  const call = { id: "1", type: "function" as const, function: { name: "f", arguments: { a: 1 } } };
  const request = await arrived(
    [
      { role: "assistant", toolCalls: [call, { name: "g" }] },
      { role: "tool", content: "42", toolCallId: "1" },
      { role: "user", content: "request" },
    ],
    {},
  );
  assert.deepEqual((request["messages"] as object[]).slice(0, 2), [
    { role: "assistant", toolCalls: [{ id: "1", name: "f", arguments: '{"a":1}' }, { name: "g", arguments: "{}" }] },
    { role: "tool", parts: [{ text: "42" }], toolCallId: "1" },
  ]);
});

test("names the option that the wire has no place for", async () => {
  const cyclic: { self?: object } = {};
  cyclic.self = cyclic;
  const cases: [string, GenerateOptions][] = [
    ["format", { format: "json" as Format }],
    ["format", { format: { regex: "a", grammar: "b" } }],
    ["format.json_schema", { format: { jsonSchema: cyclic } }],
    ["prompt.token_ids", { prompt: [1.5] }],
    ["sampling.logit_bias", { logitBias: { [-1]: 1 } }],
    ["sampling.logit_bias", { logitBias: { a: 1 } as Record<number, number> }],
    ["tools", { tools: {} as [] }],
    ["tools[1].name", { tools: [{ name: "f" }, {} as { name: string }] }],
    ["tools[0].parameters", { tools: [{ name: "f", parameters: cyclic }] }],
    ["deadline", { deadlineS: Number.NaN }],
    ["resumable", { resumableS: Infinity }],
  ];
  for (const [field, options] of cases) {
    const sent = client.generate("request", options).text();
    await assert.rejects(sent, (error) => error instanceof InvalidRequest && error.field === field, field);
  }
  const message = { role: "assistant", toolCalls: [{ name: "f", arguments: cyclic }] } as const;
  await assert.rejects(
    client.generate([{ ...message, toolCalls: [...message.toolCalls] }]).text(),
    (error) => error instanceof InvalidRequest && error.field === "messages[0].tool_calls[0].arguments",
  );
});

test("names the field of a broken picture", async () => {
  const stream = client.generate([userMessage("x"), userMessage("x", Buffer.from("broken"))]);
  await assert.rejects(stream.text(), (error) => {
    assert.ok(error instanceof InvalidRequest);
    assert.equal(error.field, "messages[1].parts[0].image");
    return true;
  });
  await assert.rejects(client.generate([userMessage("x", "/no/such.png")]).text(), InvalidRequest);
});

test("reads error details", async () => {
  await assert.rejects(client.generate("refuse: field").text(), (error) => {
    assert.ok(error instanceof InvalidRequest);
    assert.equal(error.field, "sampling.temperature");
    return true;
  });
  await assert.rejects(client.generate("refuse: overload").text(), (error) => {
    assert.ok(error instanceof Overloaded);
    assert.equal(error.retryAfterS, 3);
    return true;
  });
});

test("cancel ends the stream", async () => {
  const stream = client.generate("endless");
  for await (const event of stream) if (event.kind === "tokens") stream.cancel();
  await assert.rejects(stream.result(), Cancelled);
});

test("leaving the loop cancels", async () => {
  for await (const event of client.generate("endless")) if (event.kind === "tokens") break;
});

test("an aborted signal cancels", async () => {
  const stream = client.generate("endless", { signal: AbortSignal.timeout(50) });
  assert.match(await stream.text(), /^x*$/);
});

test("timeout of the call", async () => {
  await assert.rejects(client.generate("endless", { timeoutS: 0.1 }).text(), DeadlineExceeded);
});

test("nobody listening is not running", async () => {
  const nobody = new Client("127.0.0.1:1");
  await assert.rejects(nobody.generate("x").text(), NotRunning);
  nobody.close();
});

test("shows its API key with every call", async () => {
  const keyed = new Client(address, { apiKey: "mine" });
  const text = await keyed.generate([userMessage("proofs", Buffer.from("proven"))]).text();
  keyed.close();
  assert.equal(text, "Generate Bearer mine, GetModel Bearer mine, Upload Bearer mine");
});
