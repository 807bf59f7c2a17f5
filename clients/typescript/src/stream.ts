/** An answer as it arrives. */
import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";

import { Cancelled, errorFromCall, isLostUpload, ServerError } from "./errors.js";
import {
  eventFromWire,
  type Accepted,
  type Event,
  type Finished,
  type StageSpan,
  type TokenLogprobs,
  type Tokens,
  type Usage,
} from "./events.js";
import type { WireEvent } from "./wire.js";

/** A finished answer. Times are as this client saw them. */
export interface GenerateResult {
  requestId: string;
  model: string;
  seed: bigint;
  text: string;
  tokenIds: number[];
  logprobs: TokenLogprobs[];
  finishReason: "stop" | "length";
  stopString?: string;
  usage: Usage;
  stages: StageSpan[];
  /** From the call of generate() to the first token. */
  ttftMs?: number;
  /** Mean time per token after the first event. */
  tpotMs?: number;
}

export type WireCall = ClientReadableStream<WireEvent>;

/**
 * Iterate it for events (leaving the loop early cancels the request), or await `text()` or `result()`.
 * After `cancel()` iteration just ends.
 */
export class GenerateStream implements AsyncIterable<Event> {
  #events: AsyncGenerator<Event, void, void>;
  #call: WireCall | undefined;
  #isCancelled = false;
  #startMs = performance.now();
  #accepted: Accepted | undefined;
  #tokens: Tokens[] = [];
  #numTokens = 0;
  #finished: Finished | undefined;
  #firstAtMs: number | undefined;
  #lastAtMs = 0;

  /** `start` makes the call; it is asked with true, once, if the gateway lost a picture. */
  constructor(start: (hasLostUploads: boolean) => Promise<WireCall>, signal?: AbortSignal) {
    this.#events = this.#read(start);
    if (signal?.aborted) this.cancel();
    signal?.addEventListener("abort", () => this.cancel(), { once: true });
  }

  [Symbol.asyncIterator](): AsyncIterator<Event> {
    return this.#events;
  }

  /** Stops the work on the server. Harmless after the end. */
  cancel(): void {
    this.#isCancelled = true;
    this.#call?.cancel();
  }

  /** Reads to the end; the whole text, what was iterated before included. */
  async text(): Promise<string> {
    for await (const _ of this.#events);
    return this.#tokens.map((event) => event.text).join("");
  }

  /** Reads to the end; the whole answer. Rejects with Cancelled after `cancel()`. */
  async result(): Promise<GenerateResult> {
    const text = await this.text();
    if (!this.#finished || !this.#accepted) {
      throw new Cancelled("the request was cancelled by this client", "CANCELLED");
    }
    const { requestId, model, seed } = this.#accepted;
    const { reason, stopString, usage, stages } = this.#finished;
    return {
      requestId,
      model,
      seed,
      text,
      tokenIds: this.#tokens.flatMap((event) => event.tokenIds),
      logprobs: this.#tokens.flatMap((event) => event.logprobs),
      finishReason: reason,
      ...(stopString !== undefined && { stopString }),
      usage,
      stages,
      ...this.#times(),
    };
  }

  async *#read(start: (hasLostUploads: boolean) => Promise<WireCall>): AsyncGenerator<Event, void, void> {
    try {
      yield* this.#readCall(() => start(false));
    } catch (error) {
      if (!isLostUpload(error)) throw error;
      yield* this.#readCall(() => start(true));
    }
  }

  async *#readCall(start: () => Promise<WireCall>): AsyncGenerator<Event, void, void> {
    if (this.#isCancelled) return;
    const call = await start();
    this.#call = call;
    call.on("error", () => {}); // a cancelled call reports an error that nobody may be waiting for
    if (this.#isCancelled) call.cancel();
    try {
      for await (const message of call) {
        const event = eventFromWire(message as WireEvent);
        if (event === undefined) continue;
        this.#take(event);
        yield event;
      }
      if (!this.#finished) throw new ServerError("the stream ended before the answer did", "DATA_LOSS");
    } catch (error) {
      if (this.#isCancelled) return;
      throw error instanceof ServerError ? error : errorFromCall(error as ServiceError);
    } finally {
      if (!this.#finished) call.cancel();
    }
  }

  #take(event: Event): void {
    if (event.kind === "accepted") this.#accepted = event;
    if (event.kind === "tokens") this.#takeTokens(event);
    if (event.kind === "finished") this.#finished = event;
  }

  #takeTokens(event: Tokens): void {
    if (event.firstIndex !== this.#numTokens) {
      throw new ServerError(`token ${this.#numTokens} was next, the server sent ${event.firstIndex}`, "DATA_LOSS");
    }
    this.#tokens.push(event);
    this.#numTokens += event.tokenIds.length;
    if (event.tokenIds.length === 0) return;
    this.#lastAtMs = performance.now();
    this.#firstAtMs ??= this.#lastAtMs;
  }

  #times(): { ttftMs?: number; tpotMs?: number } {
    if (this.#firstAtMs === undefined) return {};
    const numFirst = this.#tokens.find((event) => event.tokenIds.length > 0)?.tokenIds.length ?? 0;
    const numLater = this.#numTokens - numFirst;
    const ttftMs = this.#firstAtMs - this.#startMs;
    return numLater === 0 ? { ttftMs } : { ttftMs, tpotMs: (this.#lastAtMs - this.#firstAtMs) / numLater };
  }
}
