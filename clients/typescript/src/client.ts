/** The client. */
import { randomUUID } from "node:crypto";

import { credentials, Metadata, type CallOptions, type ServiceError } from "@grpc/grpc-js";

import { errorFromCall } from "./errors.js";
import { parseMessages, picturesOf, type Message, type Picture } from "./messages.js";
import { buildRequest, type GenerateOptions } from "./request.js";
import { DEFAULT_KEEP_S, Resumption, type AnswerCalls } from "./resuming.js";
import { GenerateStream } from "./stream.js";
import { UploadCache, chunksOf } from "./uploads.js";
import { CHANNEL_OPTIONS, Inference, Media, type InferenceClient, type MediaClient, type WireCall, type WireModel } from "./wire.js";

const UNARY_TIMEOUT_MS = 30_000;
const CANCEL_TIMEOUT_MS = 5_000;

/** What is served, and where media are uploaded ("" takes them inline only). */
export interface Model {
  name: string;
  mediaEndpoint: string;
  contextTokens: number;
  mediaTtlMs: number;
}

export interface ClientOptions {
  /** Credentials of the connection; plain text if left out. */
  credentials?: ReturnType<typeof credentials.createInsecure>;
  /** Where the cluster has keys; calls that name no tenant are its tenant's. */
  apiKey?: string;
}

export interface ResumeOptions {
  /** As in the request. */
  tenant?: string;
  /** Seconds for which a lost call is tried again; 300 if left out. */
  resumableS?: number;
  /** Seconds, of reading on, kept by both sides. */
  timeoutS?: number;
  /** Stops the work when aborted. */
  signal?: AbortSignal;
}

/** Talks to one cluster. `address`: HOST:PORT of the coordinator. */
export class Client {
  readonly #inference: InferenceClient;
  readonly #credentials: ReturnType<typeof credentials.createInsecure>;
  readonly #metadata = new Metadata();
  readonly #uploads = new UploadCache();
  #media: MediaClient | undefined;
  #model: Promise<Model> | undefined;

  constructor(address: string, options: ClientOptions = {}) {
    this.#credentials = options.credentials ?? credentials.createInsecure();
    if (options.apiKey !== undefined) this.#metadata.set("authorization", `Bearer ${options.apiKey}`);
    this.#inference = new Inference(address, this.#credentials, CHANNEL_OPTIONS);
  }

  /**
   * The answer's stream of events. Nothing is sent before the stream is first used, and every error comes from
   * there. Pictures given as bytes or path are uploaded first, each once. With `options.prompt` there are no
   * messages: `generate([], { prompt })`.
   */
  generate(messages: string | Message[], options: GenerateOptions = {}): GenerateStream {
    const keepS = options.resumableS ?? 0;
    // It can be named whatever happens to the call.
    const named = keepS ? { ...options, requestId: options.requestId || randomUUID() } : options;
    const callOptions = deadlineOf(options.timeoutS);
    const calls = this.#answerCalls(named.requestId ?? "", named.tenant ?? "", callOptions);
    return new GenerateStream((hasLostUploads) => this.#start(messages, named, callOptions(), hasLostUploads), {
      signal: options.signal,
      resumption: keepS ? new Resumption(calls, keepS) : undefined,
    });
  }

  /**
   * Goes on with the answer of a resumable request, of this client or another, from a token on. Whoever read it
   * until now gets a ServerError (ABORTED). The stream, its text and its result have the tokens from `nextIndex`
   * on; they reject with InvalidRequest where the answer is not kept (NOT_FOUND) or the index is not there
   * (OUT_OF_RANGE).
   */
  resume(requestId: string, nextIndex = 0, options: ResumeOptions = {}): GenerateStream {
    const calls = this.#answerCalls(requestId, options.tenant ?? "", deadlineOf(options.timeoutS));
    return new GenerateStream(async () => calls.resume(nextIndex), {
      signal: options.signal,
      resumption: new Resumption(calls, options.resumableS ?? DEFAULT_KEEP_S),
      firstIndex: nextIndex,
    });
  }

  /** What is served, and its limits; asked once. */
  model(): Promise<Model> {
    this.#model ??= this.#askModel().catch((error: unknown) => {
      this.#model = undefined;
      throw error;
    });
    return this.#model;
  }

  /** Ends every call of this client. */
  close(): void {
    this.#inference.close();
    this.#media?.close();
  }

  #answerCalls(requestId: string, tenant: string, callOptions: () => CallOptions): AnswerCalls {
    const stop = (done: () => void) => {
      const options = { deadline: Date.now() + CANCEL_TIMEOUT_MS };
      // Where it fails, the answer ended meanwhile, or cannot be reached and expires.
      this.#inference.cancel({ requestId, tenant }, this.#metadata, options, () => done());
    };
    return {
      resume: (nextIndex) =>
        this.#inference.resume({ requestId, nextIndex, tenant }, this.#metadata, callOptions()),
      stop: () => new Promise<void>(stop),
    };
  }

  async #start(
    messages: string | Message[],
    options: GenerateOptions,
    callOptions: CallOptions,
    hasLostUploads: boolean,
  ): Promise<WireCall> {
    const parsed = await parseMessages(messages);
    const tenant = options.tenant ?? "";
    if (hasLostUploads) this.#uploads.forget(picturesOf(parsed), tenant);
    const request = buildRequest(parsed, options, await this.#upload(picturesOf(parsed), tenant));
    return this.#inference.generate(request, this.#metadata, callOptions);
  }

  async #askModel(): Promise<Model> {
    const reply = await new Promise<WireModel>((resolve, reject) => {
      const options = { deadline: Date.now() + UNARY_TIMEOUT_MS };
      this.#inference.getModel({}, this.#metadata, options, (error, reply) =>
        reply ? resolve(reply) : reject(errorFromCall(error as ServiceError)),
      );
    });
    const ttl = reply.limits?.mediaTtl;
    return {
      name: reply.model,
      mediaEndpoint: reply.mediaEndpoint,
      contextTokens: reply.limits?.contextTokens ?? 0,
      mediaTtlMs: ttl ? Number(ttl.seconds) * 1e3 + ttl.nanos / 1e6 : 0,
    };
  }

  /** Digest by bytes of what the gateway keeps; empty where there is no gateway. */
  async #upload(pictures: Picture[], tenant: string): Promise<Map<Buffer, Buffer>> {
    if (pictures.length === 0) return new Map();
    const { mediaEndpoint, mediaTtlMs } = await this.model();
    if (!mediaEndpoint) return new Map();
    this.#media ??= new Media(mediaEndpoint, this.#credentials, CHANNEL_OPTIONS);
    const media = this.#media;
    const missing = this.#uploads.missing(pictures, tenant, Date.now(), mediaTtlMs);
    await Promise.all(missing.map((each) => uploadOne(media, this.#metadata, each, tenant)));
    return this.#uploads.use(pictures, tenant, Date.now());
  }
}

/** Of all calls about one answer: the time runs from the first. */
function deadlineOf(timeoutS: number | undefined): () => CallOptions {
  let options: CallOptions | undefined;
  return () => (options ??= timeoutS === undefined ? {} : { deadline: Date.now() + timeoutS * 1e3 });
}

function uploadOne(media: MediaClient, metadata: Metadata, picture: Picture, tenant: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = media.upload(metadata, { deadline: Date.now() + UNARY_TIMEOUT_MS }, (error) =>
      error ? reject(errorFromCall(error, picture.field)) : resolve(),
    );
    chunksOf(picture.data).forEach((data, index) => call.write(index === 0 ? { data, tenant } : { data }));
    call.end();
  });
}
