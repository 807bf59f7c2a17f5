/** How the reading of a resumable answer goes on after its call was lost. */
import { InvalidRequest, NotRunning, type ElasticMMError } from "./errors.js";
import type { WireCall } from "./wire.js";

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;
export const DEFAULT_KEEP_S = 300; // as servers have it

/** What can be asked about one answer on the server. */
export interface AnswerCalls {
  /** Goes on from that token. */
  resume(nextIndex: number): WireCall;
  /** Ends the work; never rejects. */
  stop(): Promise<void>;
}

/** Of one stream: whether, when and how it goes on. */
export class Resumption {
  #loss: ElasticMMError | undefined; // undefined: the present call is sound
  #lostMs = 0;
  #numTries = 0;

  /** `keepS`: how long the server waits for a reader. */
  constructor(
    readonly calls: AnswerCalls,
    readonly keepS: number,
  ) {}

  /** Something arrived. */
  noteEvent(): void {
    this.#loss = undefined;
    this.#numTries = 0;
  }

  /**
   * How long to wait before the next try. Throws what the caller should see where there is none. `isBegun`: an
   * event has arrived, so the server was there and had the request.
   */
  pauseMs(error: ElasticMMError, nowMs: number, isBegun: boolean): number {
    if (this.#loss && isGone(error)) throw this.#loss;
    const isAlive = isBegun || this.#loss !== undefined;
    if (!error.isLostCall || (error instanceof NotRunning && !isAlive)) throw error;
    if (!this.#loss) [this.#loss, this.#lostMs] = [error, nowMs];
    if (nowMs - this.#lostMs > this.keepS * 1e3) throw this.#loss;
    return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(this.#numTries++, 10));
  }

  /** Whether the server never had the request whose call was lost. */
  isUnknown(error: ElasticMMError): boolean {
    return this.#loss !== undefined && isGone(error);
  }
}

function isGone(error: ElasticMMError): boolean {
  return error instanceof InvalidRequest && error.code === "NOT_FOUND" && error.field === "request_id";
}
