/** The client. */
import { credentials, Metadata, type CallOptions, type ServiceError } from "@grpc/grpc-js";

import { errorFromCall } from "./errors.js";
import { parseMessages, picturesOf, type Message, type Picture } from "./messages.js";
import { buildRequest, type GenerateOptions } from "./request.js";
import { GenerateStream, type WireCall } from "./stream.js";
import { UploadCache, chunksOf } from "./uploads.js";
import { CHANNEL_OPTIONS, Inference, Media, type InferenceClient, type MediaClient, type WireModel } from "./wire.js";

const UNARY_TIMEOUT_MS = 30_000;

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
   * there. Pictures given as bytes or path are uploaded first, each once.
   */
  generate(messages: string | Message[], options: GenerateOptions = {}): GenerateStream {
    const start = (hasLostUploads: boolean) => this.#start(messages, options, hasLostUploads);
    return new GenerateStream(start, options.signal);
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

  async #start(messages: string | Message[], options: GenerateOptions, hasLostUploads: boolean): Promise<WireCall> {
    const parsed = await parseMessages(messages);
    const tenant = options.tenant ?? "";
    if (hasLostUploads) this.#uploads.forget(picturesOf(parsed), tenant);
    const request = buildRequest(parsed, options, await this.#upload(picturesOf(parsed), tenant));
    const call: CallOptions = options.timeoutS === undefined ? {} : { deadline: Date.now() + options.timeoutS * 1e3 };
    return this.#inference.generate(request, this.#metadata, call);
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

function uploadOne(media: MediaClient, metadata: Metadata, picture: Picture, tenant: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = media.upload(metadata, { deadline: Date.now() + UNARY_TIMEOUT_MS }, (error) =>
      error ? reject(errorFromCall(error, picture.field)) : resolve(),
    );
    chunksOf(picture.data).forEach((data, index) => call.write(index === 0 ? { data, tenant } : { data }));
    call.end();
  });
}
