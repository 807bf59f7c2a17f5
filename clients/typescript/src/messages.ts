/** Chat messages as users write them. */
import { readFile } from "node:fs/promises";

import { InvalidRequest } from "./errors.js";
import { buildToolCalls, type ToolCall } from "./tools.js";
import type { WireToolCall } from "./wire.js";

const LOW_DETAIL_PIXELS = 512 * 512;

/** How much of a picture the model reads, by one of these; as its processor is set if left out. */
export interface PictureBound {
  /** Most pixels, at least 1. */
  maxPixels?: number;
  /** As in OpenAI's API. */
  detail?: "auto" | "low" | "high";
}

export type Part =
  | { type: "text"; text: string }
  /** A picture file's bytes, its path, or an http(s): or data: URL. */
  | ({ type: "image"; image: Uint8Array | string } & PictureBound)
  | ({ type: "image"; url: string } & PictureBound)
  | { type: "image_url"; image_url: { url: string } & PictureBound };

export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  /** May be left out beside tool calls. */
  content?: string | Part[];
  /** Of an assistant's message: what it asked for. */
  toolCalls?: ToolCall[];
  /** Of a tool's message: which call it answers. */
  toolCallId?: string;
}

/** A picture whose bytes are at hand; `field` tells where it stood, for errors. */
export interface Picture {
  data: Buffer;
  field: string;
}

export type ParsedPart =
  | { text: string }
  | { url: string; maxPixels: number | undefined }
  | { picture: Picture; maxPixels: number | undefined };

export interface ParsedMessage {
  role: string;
  parts: ParsedPart[];
  toolCalls: WireToolCall[];
  toolCallId: string;
}

/** A user's message: the pictures, then the text. */
export function userMessage(text: string, ...images: (Uint8Array | string)[]): Message {
  const pictures: Part[] = images.map((image) => ({ type: "image", image }));
  return { role: "user", content: [...pictures, { type: "text", text }] };
}

/** Reads picture files; a plain string is one user message. Rejects with InvalidRequest naming the field. */
export async function parseMessages(messages: string | Message[]): Promise<ParsedMessage[]> {
  const list: Message[] = typeof messages === "string" ? [{ role: "user", content: messages }] : messages;
  return Promise.all(list.map((message, index) => parseMessage(message, `messages[${index}]`)));
}

export function picturesOf(messages: ParsedMessage[]): Picture[] {
  return messages.flatMap(({ parts }) => parts.flatMap((part) => ("picture" in part ? [part.picture] : [])));
}

async function parseMessage(message: Message, field: string): Promise<ParsedMessage> {
  const { role, content, toolCallId = "" } = message;
  if (typeof role !== "string") throw new InvalidRequest("needs a role", `${field}.role`);
  const toolCalls = buildToolCalls(message.toolCalls ?? [], `${field}.tool_calls`);
  const given = content ?? (toolCalls.length ? [] : undefined);
  const parts = typeof given === "string" ? [{ type: "text" as const, text: given }] : given;
  if (!Array.isArray(parts)) {
    throw new InvalidRequest("needs a content: a string or a list of parts", `${field}.content`);
  }
  const parsed = await Promise.all(parts.map((part, index) => parsePart(part, `${field}.parts[${index}]`)));
  return { role, parts: parsed, toolCalls, toolCallId };
}

async function parsePart(part: Part, field: string): Promise<ParsedPart> {
  if (part.type === "text") return { text: part.text };
  const place = `${field}.image`;
  if (part.type === "image_url") return { url: part.image_url.url, maxPixels: boundOf(part.image_url, place) };
  if (part.type === "image" && "url" in part) return { url: part.url, maxPixels: boundOf(part, place) };
  if (part.type === "image" && part.image !== undefined) {
    return { ...(await parseImage(part.image, place)), maxPixels: boundOf(part, place) };
  }
  throw new InvalidRequest("is neither a text nor an image part", field);
}

/** As it is said, or of a detail; undefined where nothing is. */
function boundOf({ detail, maxPixels }: PictureBound, field: string): number | undefined {
  if (detail !== undefined && !["auto", "low", "high"].includes(detail)) {
    throw new InvalidRequest(`${detail} is none of auto, low and high`, `${field}.detail`);
  }
  if (maxPixels === undefined) return detail === "low" ? LOW_DETAIL_PIXELS : undefined;
  if (detail !== undefined) throw new InvalidRequest("is there together with detail", `${field}.max_pixels`);
  if (!Number.isInteger(maxPixels) || maxPixels < 1 || maxPixels >= 2 ** 32) {
    throw new InvalidRequest(`${maxPixels} is no number of pixels`, `${field}.max_pixels`);
  }
  return maxPixels;
}

async function parseImage(image: Uint8Array | string, field: string): Promise<{ url: string } | { picture: Picture }> {
  if (typeof image !== "string") return { picture: { data: Buffer.from(image), field } };
  if (/^(https?:\/\/|data:)/i.test(image)) return { url: image };
  try {
    return { picture: { data: await readFile(image), field } };
  } catch (error) {
    throw new InvalidRequest(`cannot read ${image}: ${(error as Error).message}`, field);
  }
}
