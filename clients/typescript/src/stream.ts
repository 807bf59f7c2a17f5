/** An answer as it arrives. */
import { setTimeout as sleep } from "node:timers/promises";

import type { ServiceError } from "@grpc/grpc-js";

import { Cancelled, ElasticMMError, errorFromCall, isLostUpload, ServerError } from "./errors.js";
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
import type { Resumption } from "./resuming.js";
import type { WireCall, WireEvent } from "./wire.js";

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

/** Makes the call; asked with true, once, if the gateway lost a picture. */
export type Start = (hasLostUploads: boolean) => Promise<WireCall>;

export interface StreamOptions {
  signal?: AbortSignal | undefined;
  /** Of a resumable request. */
  resumption?: Resumption | undefined;
  /** The first token that is wanted; undefined: `start` asks for a new answer, from its first token on. */
  firstIndex?: number;
}

/**
 * Iterate it for events (leaving the loop early cancels the request), or await `text()` or `result()`. That of a
 * resumable request connects again where its call is lost, and goes on with the next token.
 * After `cancel()` iteration just ends.
 */
export class GenerateStream implements AsyncIterable<Event> {
  #events: AsyncGenerator<Event, void, void>;
  #call: WireCall | undefined;
  readonly #resumption: Resumption | undefined;
  readonly #isResumed: boolean;
  readonly #ending = new AbortController();
  #stopping: Promise<void> | undefined;
  #hasRestarted = false;
  #startMs = performance.now();
  #accepted: Accepted | undefined;
  #tokens: Tokens[] = [];
  #nextIndex: number;
  #finished: Finished | undefined;
  #firstAtMs: number | undefined;
  #lastAtMs = 0;

  constructor(start: Start, { signal, resumption, firstIndex }: StreamOptions) {
    this.#resumption = resumption;
    this.#isResumed = firstIndex !== undefined;
    this.#nextIndex = firstIndex ?? 0;
    this.#events = this.#read(start);
    if (signal?.aborted) this.cancel();
    signal?.addEventListener("abort", () => this.cancel(), { once: true });
  }

  [Symbol.asyncIterator](): AsyncIterator<Event> {
    return this.#events;
  }

  /** Stops the work on the server. Harmless after the end. */
  cancel(): void {
    this.#ending.abort();
    if (!this.#call) return;
    this.#call.cancel();
    if (!this.#finished) this.#stopping ??= this.#resumption?.calls.stop();
  }

  get #isCancelled(): boolean {
    return this.#ending.signal.aborted;
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

  async *#read(start: Start): AsyncGenerator<Event, void, void> {
    let isLeft = true; // by who iterates
    try {
      yield* this.#readAll(start);
      isLeft = false;
    } catch (error) {
      isLeft = false;
      throw error;
    } finally {
      if (isLeft) this.cancel();
      await this.#stopping;
    }
  }

  /** Goes from call to call until the answer is whole. */
  async *#readAll(start: Start): AsyncGenerator<Event, void, void> {
    let open: () => Promise<WireCall> = () => start(false);
    while (!this.#isCancelled) {
      const call = await open();
      try {
        yield* this.#readCall(call);
        return;
      } catch (error) {
        open = await this.#nextCall(error as ElasticMMError, start);
      }
    }
  }

  /** Throws the error where it ends the stream. */
  async #nextCall(error: ElasticMMError, start: Start): Promise<() => Promise<WireCall>> {
    if (!this.#isResumed && isLostUpload(error) && !this.#hasRestarted) {
      this.#hasRestarted = true;
      return () => start(true);
    }
    const resumption = this.#resumption;
    if (!resumption) throw error;
    const isBegun = this.#accepted !== undefined;
    if (!this.#isResumed && !isBegun && resumption.isUnknown(error)) return () => start(false);
    const pauseMs = resumption.pauseMs(error, performance.now(), isBegun);
    await sleep(pauseMs, undefined, { signal: this.#ending.signal }).catch(() => {}); // cancelled meanwhile
    return async () => resumption.calls.resume(this.#nextIndex);
  }

  async *#readCall(call: WireCall): AsyncGenerator<Event, void, void> {
    this.#call = call;
    call.on("error", () => {}); // a cancelled call reports an error that nobody may be waiting for
    if (this.#isCancelled) call.cancel();
    try {
      for await (const message of call) {
        this.#resumption?.noteEvent();
        const event = eventFromWire(message as WireEvent);
        if (event === undefined || (event.kind === "accepted" && this.#accepted)) continue;
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
    if (event.firstIndex !== this.#nextIndex) {
      throw new ServerError(`token ${this.#nextIndex} was next, the server sent ${event.firstIndex}`, "DATA_LOSS");
    }
    this.#tokens.push(event);
    this.#nextIndex += event.tokenIds.length;
    if (event.tokenIds.length === 0) return;
    this.#lastAtMs = performance.now();
    this.#firstAtMs ??= this.#lastAtMs;
  }

  #times(): { ttftMs?: number; tpotMs?: number } {
    if (this.#firstAtMs === undefined) return {};
    const numFirst = this.#tokens.find((event) => event.tokenIds.length > 0)?.tokenIds.length ?? 0;
    const numLater = this.#tokens.reduce((sum, event) => sum + event.tokenIds.length, -numFirst);
    const ttftMs = this.#firstAtMs - this.#startMs;
    return numLater === 0 ? { ttftMs } : { ttftMs, tpotMs: (this.#lastAtMs - this.#firstAtMs) / numLater };
  }
}
