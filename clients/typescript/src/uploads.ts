/** Which pictures this client has uploaded, and how bytes are cut for the wire. */
import { createHash } from "node:crypto";

import type { Picture } from "./messages.js";

const CHUNK_BYTES = 1 << 20;
const MAX_REMEMBERED = 4096;

/** Digests the gateway still keeps for each tenant: those used within half its time to live. */
export class UploadCache {
  readonly #usedAtMs = new Map<string, number>();

  /** Pictures to upload, each once. */
  missing(pictures: Picture[], tenant: string, nowMs: number, ttlMs: number): Picture[] {
    const byDigest = new Map(pictures.map((picture) => [digestOf(picture.data).toString("hex"), picture]));
    return [...byDigest]
      .filter(([digest]) => (this.#usedAtMs.get(`${digest} ${tenant}`) ?? -Infinity) <= nowMs - ttlMs / 2)
      .map(([, picture]) => picture);
  }

  /** The gateway lost them. */
  forget(pictures: Picture[], tenant: string): void {
    for (const { data } of pictures) this.#usedAtMs.delete(`${digestOf(data).toString("hex")} ${tenant}`);
  }

  /** All of them are uploaded and used now; returns digests by bytes. */
  use(pictures: Picture[], tenant: string, nowMs: number): Map<Buffer, Buffer> {
    const digests = new Map(pictures.map(({ data }) => [data, digestOf(data)]));
    for (const digest of digests.values()) {
      const key = `${digest.toString("hex")} ${tenant}`;
      this.#usedAtMs.delete(key);
      this.#usedAtMs.set(key, nowMs);
    }
    for (const oldest of this.#usedAtMs.keys()) {
      if (this.#usedAtMs.size <= MAX_REMEMBERED) break;
      this.#usedAtMs.delete(oldest);
    }
    return digests;
  }
}

/** SHA-256, the name under which the gateway keeps the bytes. */
export function digestOf(data: Buffer): Buffer {
  return createHash("sha256").update(data).digest();
}

/** At least one chunk, each of at most 1 MiB. */
export function chunksOf(data: Buffer): Buffer[] {
  const count = Math.max(1, Math.ceil(data.length / CHUNK_BYTES));
  return Array.from({ length: count }, (_, index) => data.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES));
}
