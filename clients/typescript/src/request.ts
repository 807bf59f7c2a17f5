/** The wire request from messages and options. */
import { InvalidRequest } from "./errors.js";
import type { ParsedMessage, ParsedPart } from "./messages.js";
import type { WireMessage, WireRequest } from "./wire.js";

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
  /** Alternatives per token, 0 to 20. */
  logprobs?: number;
  /** The answer ends before the first of these. */
  stop?: string | string[];
  stopTokenIds?: number[];
  /** Go on past the model's end token. */
  ignoreEos?: boolean;
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

/** Pictures in `digests` go by digest, others inline. */
export function buildRequest(
  messages: ParsedMessage[],
  options: GenerateOptions,
  digests: Map<Buffer, Buffer>,
): WireRequest {
  const { requestId, model, tenant, cacheScope, cacheSalt, priority, deadlineS } = options;
  const sampling = SAMPLING.flatMap((name) => {
    const value = options[name];
    return value === undefined ? [] : [[name, typeof value === "bigint" ? value.toString() : value] as const];
  });
  return {
    messages: messages.map((message) => buildMessage(message, digests)),
    sampling: Object.fromEntries(sampling),
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
    ...(deadlineS !== undefined && { deadline: duration(deadlineS) }),
  };
}

function scopeName(scope: string): string {
  if (!SCOPES.includes(scope)) throw new InvalidRequest(`${scope} is none of ${SCOPES.join(", ")}`, "cache_scope");
  return `CACHE_SCOPE_${scope.toUpperCase()}`;
}

function duration(seconds: number): { seconds: number; nanos: number } {
  const whole = Math.trunc(seconds);
  return { seconds: whole, nanos: Math.round((seconds - whole) * 1e9) };
}

function buildMessage(message: ParsedMessage, digests: Map<Buffer, Buffer>): WireMessage {
  return { role: message.role, parts: message.parts.map((part) => buildPart(part, digests)) };
}

function buildPart(part: ParsedPart, digests: Map<Buffer, Buffer>): WireMessage["parts"][number] {
  if ("text" in part) return { text: part.text };
  if ("url" in part) return { image: { url: part.url } };
  const digest = digests.get(part.picture.data);
  return { image: digest ? { digest } : { data: part.picture.data } };
}
