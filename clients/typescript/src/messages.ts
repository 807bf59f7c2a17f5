/** Chat messages as users write them. */
import { readFile } from "node:fs/promises";

import { InvalidRequest } from "./errors.js";

export type Part =
  | { type: "text"; text: string }
  /** A picture file's bytes, its path, or an http(s): or data: URL. */
  | { type: "image"; image: Uint8Array | string }
  | { type: "image"; url: string }
  | { type: "image_url"; image_url: { url: string } };

export interface Message {
  role: "system" | "user" | "assistant";
  content: string | Part[];
}

/** A picture whose bytes are at hand; `field` tells where it stood, for errors. */
export interface Picture {
  data: Buffer;
  field: string;
}

export type ParsedPart = { text: string } | { url: string } | { picture: Picture };

export interface ParsedMessage {
  role: string;
  parts: ParsedPart[];
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

async function parseMessage({ role, content }: Message, field: string): Promise<ParsedMessage> {
  if (typeof role !== "string") throw new InvalidRequest("needs a role", `${field}.role`);
  const parts: Part[] = typeof content === "string" ? [{ type: "text", text: content }] : content;
  if (!Array.isArray(parts)) {
    throw new InvalidRequest("needs a content: a string or a list of parts", `${field}.content`);
  }
  return { role, parts: await Promise.all(parts.map((part, index) => parsePart(part, `${field}.parts[${index}]`))) };
}

async function parsePart(part: Part, field: string): Promise<ParsedPart> {
  if (part.type === "text") return { text: part.text };
  if (part.type === "image_url") return { url: part.image_url.url };
  if (part.type === "image" && "url" in part) return { url: part.url };
  if (part.type === "image" && part.image !== undefined) return parseImage(part.image, `${field}.image`);
  throw new InvalidRequest("is neither a text nor an image part", field);
}

async function parseImage(image: Uint8Array | string, field: string): Promise<ParsedPart> {
  if (typeof image !== "string") return { picture: { data: Buffer.from(image), field } };
  if (/^(https?:\/\/|data:)/i.test(image)) return { url: image };
  try {
    return { picture: { data: await readFile(image), field } };
  } catch (error) {
    throw new InvalidRequest(`cannot read ${image}: ${(error as Error).message}`, field);
  }
}
