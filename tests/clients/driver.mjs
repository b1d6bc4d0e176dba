// Runs the client named on the command line: one job in JSON on each line in, one result in JSON on each line out.
//
// A job is {"do": name, ...arguments}; the result is {"ok": value} or {"refused": {name, error, description}}.

import { createInterface } from "node:readline";
import { webcrypto } from "node:crypto";

// Node 18 has both, but not where libraries look for them.
globalThis.crypto ??= webcrypto;
globalThis.CryptoKey ??= webcrypto.CryptoKey;

const { jobs } = await import(`./${process.argv[2]}.mjs`);

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...job } = JSON.parse(line);
  let result;
  try {
    result = { ok: (await jobs[name](job)) ?? null };
  } catch (failure) {
    result = { refused: { name: failure.name, text: failure.message, ...reasonOf(failure) } };
    if (result.refused.error === undefined) console.error(failure);
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}

// The error code as the OAuth endpoints (RFC 6749 §5.2), the redirect (§4.1.2.1) or the API's challenge (RFC 9449 §7.1)
// gave it.
function reasonOf({ error, error_description, cause }) {
  const given = Array.isArray(cause) ? cause[0].parameters : { error, error_description };
  return { error: given.error, description: given.error_description };
}
