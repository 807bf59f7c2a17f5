/** A TCP connection between client and server that breaks. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** Forwards to `target`; the n-th connection breaks once so many bytes of the answer have passed, others never. */
export class BreakingWire {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  numConnections = 0;

  constructor(target: string, bounds: number[]) {
    const [host, port] = target.split(":");
    this.#server = createServer((client) => {
      const server = connect(Number(port), host);
      let left = bounds[this.numConnections++] ?? Infinity;
      for (const socket of [client, server]) {
        this.#sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => [client, server].forEach((each) => each.destroy()));
      }
      client.on("data", (data) => server.write(data));
      server.on("data", (data) => {
        client.write(data.subarray(0, left));
        left -= data.length;
        if (left <= 0) client.destroySoon();
      });
    });
  }

  /** HOST:PORT to connect to. */
  async open(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#sockets.forEach((socket) => socket.destroy());
    await closed;
  }
}
