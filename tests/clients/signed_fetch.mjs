// A fetch that signs what it sends and believes no answer without the bank's signature, by `http-message-signatures`.

import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import { createSigner, createVerifier, httpbis } from "http-message-signatures";

const ALGORITHM = "ecdsa-p256-sha256";
const SIGNED = ["@method", "@target-uri", "authorization", "dpop", "content-digest", "idempotency-key"];
const ANSWERED = ["@status", "@method", "@target-uri", "content-digest", "signature", "signature-input"];
const AGE_SECONDS = 60;

const digestOf = (text) => `sha-256=:${createHash("sha256").update(text).digest("base64")}:`;

export function makeSignedFetch({ kid, private_jwk, jwks_uri }) {
  const key = createSigner(createPrivateKey({ key: private_jwk, format: "jwk" }), ALGORITHM, kid);

  return async (url, options) => {
    const { method, body } = options;
    const request = { method, url, headers: { ...options.headers, "content-digest": digestOf(body) } };
    const paramValues = { tag: "fapi-2-request" };
    const params = ["created", "keyid", "alg", "tag"];
    const signed = await httpbis.signMessage({ key, params, paramValues, fields: SIGNED }, request);
    const answer = await fetch(url, { ...options, headers: signed.headers });
    // Whoever is refused before the signature was looked at (a nonce is needed, say) gets an unsigned 401: nothing happened.
    if (answer.status !== 401 || answer.headers.has("signature")) await check(signed, answer.clone());
    return answer;
  };

  async function check(request, answer) {
    const headers = Object.fromEntries(answer.headers);
    const { keys } = await (await fetch(jwks_uri)).json();
    const keyLookup = async ({ keyid, tag }) => {
      const jwk = tag === "fapi-2-response" && keys.find((each) => each.kid === keyid);
      if (!jwk) return null;
      const publicKey = createPublicKey({ key: jwk, format: "jwk" });
      return { id: keyid, algs: [ALGORITHM], verify: createVerifier(publicKey, ALGORITHM) };
    };
    const wanted = { keyLookup, maxAge: AGE_SECONDS, requiredParams: ["created", "keyid"], requiredFields: ANSWERED };
    const good = await httpbis.verifyMessage(wanted, { status: answer.status, headers }, request);
    if (good !== true) throw new Error("the answer is not signed by the bank");
    if (headers["content-digest"] !== digestOf(await answer.text())) throw new Error("the body is not what was signed");
  }
}
