/** Failures of a call, by what the caller can do about them. */
import { status, type ServiceError } from "@grpc/grpc-js";

import { parseDetails, type ErrorDetails } from "./details.js";

/** A call failed. `code` is the gRPC status name. */
export class ElasticMMError extends Error {
  /** Whether the call was lost on its way, and the server said nothing of it. */
  isLostCall = false;

  constructor(
    message: string,
    readonly code: string = "UNKNOWN",
  ) {
    super(message);
    this.name = new.target.name;
  }
}

/** The request is at fault; `field` names where ("messages[0].parts[1].image"), "" if unknown. */
export class InvalidRequest extends ElasticMMError {
  constructor(
    message: string,
    readonly field: string = "",
    code = "INVALID_ARGUMENT",
  ) {
    super(field && !message.startsWith(field) ? `${field}: ${message}` : message, code);
  }
}

/** The server takes no more now; try again after `retryAfterS` seconds, if it said so. */
export class Overloaded extends ElasticMMError {
  constructor(
    message: string,
    readonly retryAfterS?: number,
  ) {
    super(message, "RESOURCE_EXHAUSTED");
  }
}

/** The server, or the part of it that ran the request, went away. */
export class Unavailable extends ElasticMMError {}
/** Nobody listens at the address. */
export class NotRunning extends Unavailable {}
/** The call's timeout or the request's deadline passed. */
export class DeadlineExceeded extends ElasticMMError {}
/** The request was cancelled. */
export class Cancelled extends ElasticMMError {}
/** A request with this id is running. */
export class AlreadyRunning extends ElasticMMError {}
/** The API key is missing, wrong, or not for this. */
export class AccessDenied extends ElasticMMError {}
/** The server failed, or broke its promises about the stream. */
export class ServerError extends ElasticMMError {}

/** The typed error for what grpc-js reported. `field`: what the call was about, where the server cannot know it. */
export function errorFromCall(error: ServiceError, field = ""): ElasticMMError {
  const raw = error.metadata?.get("grpc-status-details-bin")[0];
  const details = parseDetails(raw);
  const known: ErrorDetails = field && details.field ? { ...details, field } : details;
  const message = error.details || error.message;
  const made = makeError(error.code, message, known);
  // Whatever a server of ours says by itself has details.
  made.isLostCall = raw === undefined && (error.code === status.UNAVAILABLE || message.includes("RST_STREAM"));
  return made;
}

/** Whether the gateway no longer keeps a picture that was named by its digest. */
export function isLostUpload(error: unknown): boolean {
  return error instanceof InvalidRequest && error.code === "NOT_FOUND" && error.field.endsWith(".digest");
}

function makeError(code: status, message: string, details: ErrorDetails): ElasticMMError {
  const name = status[code] ?? "UNKNOWN";
  switch (code) {
    case status.RESOURCE_EXHAUSTED:
      if (details.field || message.includes("larger than max")) {
        return new InvalidRequest(message, details.field || "messages", name);
      }
      return new Overloaded(message, details.retryAfterS);
    case status.INVALID_ARGUMENT:
    case status.NOT_FOUND:
    case status.OUT_OF_RANGE:
    case status.FAILED_PRECONDITION:
      return new InvalidRequest(message, details.field, name);
    case status.UNAVAILABLE:
      return /ECONNREFUSED|No connection established|failed to connect/i.test(message)
        ? new NotRunning(message, name)
        : new Unavailable(message, name);
    case status.DEADLINE_EXCEEDED:
      return new DeadlineExceeded(message, name);
    case status.CANCELLED:
      return new Cancelled(message, name);
    case status.ALREADY_EXISTS:
      return new AlreadyRunning(message, name);
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return new AccessDenied(message, name);
    default:
      return new ServerError(message, name);
  }
}
