/** The wire request from messages and options. */
import { InvalidRequest } from "./errors.js";
import type { ParsedMessage, ParsedPart } from "./messages.js";
import { buildTools, toJson, type Tool } from "./tools.js";
import type { WireDuration, WireImage, WireMessage, WireRequest } from "./wire.js";

/** A form that all of the answer has; a schema may be JSON or what becomes it. */
export type Format = "json_object" | { jsonSchema: string | object } | { regex: string } | { grammar: string };

/** Everything about a request but its messages. What is left out is the server's choice. */
export interface GenerateOptions {
  model?: string;
  /** At least 1; up to the context length if left out. */
  maxTokens?: number;
  /** 0 (default) is greedy, at most 5. */
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  repetitionPenalty?: number;
  /** 64 bits; Accepted.seed tells the one in use. */
  seed?: number | bigint;
  /** Alternatives per token, 0 to 20; of the model itself, whatever else is asked for. */
  logprobs?: number;
  /** Added to these tokens' logits, -100 to 100, at most 300 tokens. */
  logitBias?: Record<number, number>;
  /** The answer ends before the first of these. */
  stop?: string | string[];
  stopTokenIds?: number[];
  /** Go on past the model's end token. */
  ignoreEos?: boolean;
  /** In the place of messages: text or token ids as they are, without template. */
  prompt?: string | number[];
  /** What the answer has to look like. */
  format?: Format;
  /** Functions that the model is told of, where its template has a place for them. */
  tools?: Tool[];
  /** Idempotency key. */
  requestId?: string;
  /** Whose request this is; "default" if left out. */
  tenant?: string;
  /** Who may find what this leaves in caches; as set for the tenant if left out. */
  cacheScope?: "none" | "tenant" | "cluster";
  /** Only requests with the same one share cache entries, at most 256 characters. */
  cacheSalt?: string;
  /** Higher goes first, -10 to 10. */
  priority?: number;
  /** Seconds from arrival to the last token, kept by the server. */
  deadlineS?: number;
  /** Seconds, of the call, kept by both sides. */
  timeoutS?: number;
  /** Seconds that the answer is kept after a lost call, and read on by itself; 0: it ends with its call. */
  resumableS?: number;
  /** Cancels the request when aborted. */
  signal?: AbortSignal;
}

const SAMPLING = [
  "maxTokens",
  "temperature",
  "topP",
  "topK",
  "minP",
  "presencePenalty",
  "frequencyPenalty",
  "repetitionPenalty",
  "seed",
  "logprobs",
] as const;

const SCOPES = ["none", "tenant", "cluster"];
const MAX_TOKEN_ID = 2 ** 32 - 1;

/** Pictures in `digests` go by digest, others inline. */
export function buildRequest(
  messages: ParsedMessage[],
  options: GenerateOptions,
  digests: Map<Buffer, Buffer>,
): WireRequest {
  const { requestId, model, tenant, cacheScope, cacheSalt, priority, deadlineS, resumableS } = options;
  const { logitBias, prompt, format, tools } = options;
  const sampling = SAMPLING.flatMap((name) => {
    const value = options[name];
    return value === undefined ? [] : [[name, typeof value === "bigint" ? value.toString() : value] as const];
  });
  return {
    messages: messages.map((message) => buildMessage(message, digests)),
    sampling: {
      ...Object.fromEntries(sampling),
      ...(logitBias !== undefined && { logitBias: checkedBias(logitBias) }),
    },
    stop: {
      strings: options.stop === undefined ? [] : [options.stop].flat(),
      tokenIds: options.stopTokenIds ?? [],
      ignoreEos: options.ignoreEos ?? false,
    },
    ...(requestId !== undefined && { requestId }),
    ...(model !== undefined && { model }),
    ...(tenant !== undefined && { tenant }),
    ...(cacheScope !== undefined && { cacheScope: scopeName(cacheScope) }),
    ...(cacheSalt !== undefined && { cacheSalt }),
    ...(priority !== undefined && { priority }),
    ...(deadlineS !== undefined && { deadline: duration(deadlineS, "deadline") }),
    ...(resumableS !== undefined && { resumable: duration(resumableS, "resumable") }),
    ...(prompt !== undefined && { prompt: buildPrompt(prompt) }),
    ...(format !== undefined && { format: buildFormat(format) }),
    ...(tools !== undefined && { tools: buildTools(tools) }),
  };
}

function scopeName(scope: string): string {
  if (!SCOPES.includes(scope)) throw new InvalidRequest(`${scope} is none of ${SCOPES.join(", ")}`, "cache_scope");
  return `CACHE_SCOPE_${scope.toUpperCase()}`;
}

/** What the wire's encoder would make another token of, without a word. */
function checkedBias(bias: Record<number, number>): Record<string, number> {
  for (const [token, value] of Object.entries(bias)) {
    if (!isTokenId(Number(token)) || typeof value !== "number") {
      throw new InvalidRequest(`${token}: ${value} is no token id and its bias`, "sampling.logit_bias");
    }
  }
  return bias;
}

function isTokenId(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_TOKEN_ID;
}

function buildPrompt(prompt: string | number[]): NonNullable<WireRequest["prompt"]> {
  if (typeof prompt === "string") return { text: prompt };
  if (!Array.isArray(prompt) || !prompt.every(isTokenId)) {
    throw new InvalidRequest("is neither a text nor a list of token ids", "prompt.token_ids");
  }
  return { tokenIds: { ids: prompt } };
}

function buildFormat(format: Format): NonNullable<WireRequest["format"]> {
  if (format === "json_object") return { jsonObject: true };
  if (typeof format === "object" && Object.keys(format).length === 1) {
    if ("jsonSchema" in format) return { jsonSchema: toJson(format.jsonSchema, "format.json_schema") };
    if ("regex" in format) return { regex: format.regex };
    if ("grammar" in format) return { grammar: format.grammar };
  }
  throw new InvalidRequest("is neither json_object nor one of jsonSchema, regex, grammar", "format");
}

function duration(seconds: number, field: string): WireDuration {
  if (!Number.isFinite(seconds)) throw new InvalidRequest(`${seconds} is no number of seconds`, field);
  const whole = Math.trunc(seconds);
  return { seconds: whole, nanos: Math.round((seconds - whole) * 1e9) };
}

function buildMessage(message: ParsedMessage, digests: Map<Buffer, Buffer>): WireMessage {
  return { ...message, parts: message.parts.map((part) => buildPart(part, digests)) };
}

function buildPart(part: ParsedPart, digests: Map<Buffer, Buffer>): WireMessage["parts"][number] {
  if ("text" in part) return { text: part.text };
  return { image: { ...sourceOf(part, digests), ...(part.maxPixels !== undefined && { maxPixels: part.maxPixels }) } };
}

function sourceOf(part: Exclude<ParsedPart, { text: string }>, digests: Map<Buffer, Buffer>): WireImage {
  if ("url" in part) return { url: part.url };
  const digest = digests.get(part.picture.data);
  return digest ? { digest } : { data: part.picture.data };
}
