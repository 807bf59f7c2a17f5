/**
 * Asks a question about pictures and prints the answer as it comes.
 *
 *   npm run example -- --address 127.0.0.1:50051 --image scene.png "What colour is the circle?"
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { Client, ElasticMMError, userMessage } from "./src/index.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    address: { type: "string", default: "127.0.0.1:50051" },
    image: { type: "string", multiple: true, default: [] },
    "max-tokens": { type: "string", default: "64" },
    schema: { type: "string" }, // a file with a JSON schema that the answer is to fit
    resumable: { type: "string", default: "0" }, // seconds for which a lost connection ends nothing
  },
});
const question = positionals.join(" ") || "Describe the picture.";

const client = new Client(values.address);
try {
  const messages = [userMessage(question, ...values.image)];
  const answer = client.generate(messages, {
    maxTokens: Number(values["max-tokens"]),
    resumableS: Number(values.resumable),
    ...(values.schema !== undefined && { format: { jsonSchema: readFileSync(values.schema, "utf8") } }),
  });
  for await (const event of answer) {
    process.stdout.write(event.text);
    if (event.kind === "finished") {
      process.stdout.write("\n");
      for (const span of event.stages) {
        const [start, end] = [span.startMs.toFixed(1), span.endMs.toFixed(1)];
        console.error(`${span.stage} on ${span.instance}: ${start} to ${end} ms`);
      }
    }
  }
} catch (error) {
  if (!(error instanceof ElasticMMError)) throw error;
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
