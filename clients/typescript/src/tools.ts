/** Tools and their calls as users write them: plain, or as OpenAI's clients do, inside of a "function". */
import { InvalidRequest } from "./errors.js";
import type { WireTool, WireToolCall } from "./wire.js";

export interface ToolFunction {
  name: string;
  description?: string;
  /** JSON schema of its arguments, as JSON or as what becomes it. */
  parameters?: string | object;
}

export interface FunctionCall {
  name: string;
  /** JSON, or what becomes it. */
  arguments?: string | object;
}

export type Tool = ToolFunction | { type?: "function"; function: ToolFunction };
export type ToolCall = ({ id?: string } & FunctionCall) | { id?: string; type?: "function"; function: FunctionCall };

/** Throws InvalidRequest naming the field. */
export function buildTools(tools: Tool[]): WireTool[] {
  return listed(tools, "tools").map((tool, index) => {
    const { name, description = "", parameters } = named("function" in tool ? tool.function : tool, `tools[${index}]`);
    const schema = parameters === undefined ? "" : toJson(parameters, `tools[${index}].parameters`);
    return { name, description, parameters: schema };
  });
}

/** Throws InvalidRequest naming the field. */
export function buildToolCalls(calls: ToolCall[], field: string): WireToolCall[] {
  return listed(calls, field).map((call, index) => {
    const place = `${field}[${index}]`;
    const { name, arguments: given = {} } = named("function" in call ? call.function : call, place);
    return { id: call.id ?? "", name, arguments: toJson(given, `${place}.arguments`) };
  });
}

/** Strings are taken as JSON already. Throws InvalidRequest for what JSON has no word for. */
export function toJson(value: unknown, field: string): string {
  if (typeof value === "string") return value;
  try {
    const json = JSON.stringify(value) as string | undefined;
    if (json !== undefined) return json;
  } catch (error) {
    throw new InvalidRequest((error as Error).message, field);
  }
  throw new InvalidRequest("is nothing that JSON can say", field);
}

function listed<T>(values: T[], field: string): T[] {
  if (!Array.isArray(values)) throw new InvalidRequest("needs a list", field);
  return values;
}

function named<T extends { name: string }>(value: T, field: string): T {
  if (typeof (value as T | undefined)?.name !== "string") throw new InvalidRequest("needs a name", `${field}.name`);
  return value;
}
