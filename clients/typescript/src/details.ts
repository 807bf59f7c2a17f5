/**
 * Reads google.rpc details from a status: BadRequest (the field at fault) and RetryInfo.
 *
 *   Status { repeated Any details = 3 }   Any { type_url = 1; value = 2 }
 *   BadRequest { repeated FieldViolation = 1 { field = 1 } }
 *   RetryInfo { Duration retry_delay = 1 { seconds = 1; nanos = 2 } }
 */
export interface ErrorDetails {
  field: string;
  retryAfterS?: number;
}

/** Empty where there are no details or they cannot be read. */
export function parseDetails(raw: unknown): ErrorDetails {
  const details: ErrorDetails = { field: "" };
  if (!Buffer.isBuffer(raw)) return details;
  for (const any of messages(raw, 3)) {
    const url = messages(any, 1)[0]?.toString() ?? "";
    const value = messages(any, 2)[0] ?? Buffer.alloc(0);
    if (url.endsWith("google.rpc.BadRequest")) {
      const violation = messages(value, 1)[0];
      details.field = (violation && messages(violation, 1)[0]?.toString()) ?? "";
    } else if (url.endsWith("google.rpc.RetryInfo")) {
      details.retryAfterS = seconds(messages(value, 1)[0] ?? Buffer.alloc(0));
    }
  }
  return details;
}

function seconds(duration: Buffer): number {
  const numbers = new Map<number, number>();
  for (const [number, value] of fields(duration)) {
    if (typeof value === "number") numbers.set(number, value);
  }
  return (numbers.get(1) ?? 0) + (numbers.get(2) ?? 0) / 1e9;
}

/** The length-delimited fields of that number. */
function messages(buffer: Buffer, wanted: number): Buffer[] {
  return fields(buffer).flatMap(([number, value]) => (number === wanted && Buffer.isBuffer(value) ? [value] : []));
}

/** Number and value of every varint and length-delimited field. */
function fields(buffer: Buffer): [number, number | Buffer][] {
  const found: [number, number | Buffer][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; at < buffer.length; factor *= 128) {
      const byte = buffer[at++] ?? 0;
      value += (byte & 127) * factor;
      if (byte < 128) break;
    }
    return value;
  };
  while (at < buffer.length) {
    const tag = varint();
    switch (tag & 7) {
      case 0:
        found.push([tag >>> 3, varint()]);
        break;
      case 1:
        at += 8;
        break;
      case 2: {
        const length = varint();
        found.push([tag >>> 3, buffer.subarray(at, at + length)]);
        at += length;
        break;
      }
      case 5:
        at += 4;
        break;
      default:
        return found;
    }
  }
  return found;
}
