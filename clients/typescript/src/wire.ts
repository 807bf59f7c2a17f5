/** The services of protos/, loaded when the module is; and the shapes of their messages as used here. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

export interface WireImage {
  digest?: Buffer;
  data?: Buffer;
  url?: string;
  maxPixels?: number;
}

export interface WireTool {
  name: string;
  description: string;
  parameters: string;
}

export interface WireToolCall {
  id: string;
  name: string;
  arguments: string;
}

export interface WireMessage {
  role: string;
  parts: ({ text: string } | { image: WireImage })[];
  toolCalls: WireToolCall[];
  toolCallId: string;
}

export interface WireDuration {
  seconds: number;
  nanos: number;
}

export interface WireRequest {
  messages: WireMessage[];
  sampling: Record<string, number | string | Record<string, number>>;
  stop: { strings: string[]; tokenIds: number[]; ignoreEos: boolean };
  requestId?: string;
  model?: string;
  tenant?: string;
  cacheScope?: string;
  cacheSalt?: string;
  priority?: number;
  deadline?: WireDuration;
  resumable?: WireDuration;
  prompt?: { text: string } | { tokenIds: { ids: number[] } };
  format?: { jsonObject: true } | { jsonSchema: string } | { regex: string } | { grammar: string };
  tools?: WireTool[];
}

export interface WireLogprobs {
  logprob: number;
  top: { tokenId: number; logprob: number }[];
}

export interface WireUsage {
  promptTokens: number;
  completionTokens: number;
  mediaTokens: number;
  cachedTokens: number;
  cachedMedia: number;
}

export interface WireEvent {
  event?: "accepted" | "tokens" | "finished";
  accepted?: { requestId: string; model: string; seed: string; promptTokens: number };
  tokens?: { firstIndex: number; tokenIds: number[]; text: string; logprobs: WireLogprobs[] };
  finished?: {
    reason: string;
    stopString: string;
    usage: WireUsage | null;
    stages: { stage: string; instanceId: string; startMs: number; endMs: number; transport: string }[];
  };
}

export interface WireModel {
  model: string;
  mediaEndpoint: string;
  limits: { contextTokens: number; mediaTtl: { seconds: string; nanos: number } | null } | null;
}

export type WireCall = grpc.ClientReadableStream<WireEvent>;

type Streamed<Request> = (request: Request, metadata: grpc.Metadata, options: grpc.CallOptions) => WireCall;

type Unary<Request, Reply> = (
  request: Request,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  callback: (error: grpc.ServiceError | null, reply?: Reply) => void,
) => grpc.ClientUnaryCall;

export interface InferenceClient extends grpc.Client {
  generate: Streamed<WireRequest>;
  resume: Streamed<{ requestId: string; nextIndex: number; tenant: string }>;
  cancel: Unary<{ requestId: string; tenant: string }, object>;
  getModel: Unary<Record<string, never>, WireModel>;
}

export interface MediaClient extends grpc.Client {
  upload(
    metadata: grpc.Metadata,
    options: grpc.CallOptions,
    callback: (error: grpc.ServiceError | null, reply?: { digest: Buffer }) => void,
  ): grpc.ClientWritableStream<{ data: Buffer; tenant?: string }>;
}

type Constructor<Service> = new (
  address: string,
  credentials: grpc.ChannelCredentials,
  options: grpc.ChannelOptions,
) => Service;

interface Loaded {
  Inference: Constructor<InferenceClient>;
  Media: Constructor<MediaClient>;
}

/** The folder of the wire contract: beside the package where it is installed, or of the source tree. */
function findProtos(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, "protos/elasticmm/v1/inference.proto"))) return join(folder, "protos");
    if (folder === dirname(folder)) throw new Error("elasticmm-client: its protos folder is missing");
  }
}

function load(): Loaded {
  const definition = loadSync("elasticmm/v1/inference.proto", {
    includeDirs: [findProtos()],
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const root = grpc.loadPackageDefinition(definition) as unknown as { elasticmm: { v1: Loaded } };
  return root.elasticmm.v1;
}

export const { Inference, Media } = load();

/** Only the server limits sizes; a dead peer is noticed within a minute. */
export const CHANNEL_OPTIONS: grpc.ChannelOptions = {
  "grpc.max_send_message_length": -1,
  "grpc.max_receive_message_length": -1,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 20_000,
};
