/** What a stream yields: one Accepted, Tokens in order of index, one Finished. Each has a `text`, "" where none. */
import type { WireEvent, WireLogprobs } from "./wire.js";

export interface Accepted {
  kind: "accepted";
  text: "";
  requestId: string;
  model: string;
  /** The seed in use, 64 bits. */
  seed: bigint;
  promptTokens: number;
}

/** The next tokens. `text` may be empty while a character is incomplete. */
export interface Tokens {
  kind: "tokens";
  text: string;
  firstIndex: number;
  tokenIds: number[];
  logprobs: TokenLogprobs[];
}

export interface Finished {
  kind: "finished";
  text: "";
  reason: "stop" | "length";
  /** The stop string that was met, if one was. */
  stopString?: string;
  usage: Usage;
  /** Which instance did what, in order of start. */
  stages: StageSpan[];
}

export type Event = Accepted | Tokens | Finished;

export interface TokenLogprobs {
  logprob: number;
  top: { tokenId: number; logprob: number }[];
}

export interface Usage {
  promptTokens: number;
  completionTokens: number;
  mediaTokens: number;
  cachedTokens: number;
  /** Pictures that did not have to be encoded. */
  cachedMedia: number;
}

export interface StageSpan {
  stage: string;
  instance: string;
  /** Milliseconds since the request arrived. */
  startMs: number;
  endMs: number;
  /** How the result went on: "local", a transport (such as "shm"), "" nowhere. */
  transport: string;
}

const NO_USAGE: Usage = { promptTokens: 0, completionTokens: 0, mediaTokens: 0, cachedTokens: 0, cachedMedia: 0 };

/** The event, or undefined for a kind that a newer server knows and we do not. */
export function eventFromWire(message: WireEvent): Event | undefined {
  if (message.accepted) {
    return { kind: "accepted", text: "", ...message.accepted, seed: BigInt(message.accepted.seed) };
  }
  if (message.tokens) {
    return { kind: "tokens", ...message.tokens, logprobs: message.tokens.logprobs.map(logprobs) };
  }
  return message.finished && finished(message.finished);
}

function logprobs(message: WireLogprobs): TokenLogprobs {
  return { logprob: message.logprob, top: message.top };
}

function finished(message: NonNullable<WireEvent["finished"]>): Finished {
  return {
    kind: "finished",
    text: "",
    reason: message.reason === "FINISH_REASON_LENGTH" ? "length" : "stop",
    ...(message.stopString && { stopString: message.stopString }),
    usage: message.usage ?? NO_USAGE,
    stages: message.stages.map(({ stage, instanceId, ...rest }) => ({
      stage: stage.replace("STAGE_", "").toLowerCase(),
      instance: instanceId,
      ...rest,
    })),
  };
}
