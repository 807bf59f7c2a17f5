/** Client of an ElasticMM cluster: chat with text and pictures, token streams back. */
export { Client } from "./client.js";
export type { ClientOptions, Model, ResumeOptions } from "./client.js";
export {
  AccessDenied,
  AlreadyRunning,
  Cancelled,
  DeadlineExceeded,
  ElasticMMError,
  InvalidRequest,
  NotRunning,
  Overloaded,
  ServerError,
  Unavailable,
} from "./errors.js";
export type { Accepted, Event, Finished, StageSpan, TokenLogprobs, Tokens, Usage } from "./events.js";
export { userMessage } from "./messages.js";
export type { Message, Part, PictureBound } from "./messages.js";
export type { Format, GenerateOptions } from "./request.js";
export { GenerateStream } from "./stream.js";
export type { GenerateResult } from "./stream.js";
export type { FunctionCall, Tool, ToolCall, ToolFunction } from "./tools.js";
