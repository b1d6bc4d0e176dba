// The npm package `oauth4webapi`, which leaves each step to its user: request, nonce, check of the answer.

import * as oauth from "oauth4webapi";
import { importJWK } from "jose";

const insecure = { [oauth.allowInsecureRequests]: true };
let server, client, authentication, DPoP;

// RFC 9449 §8: the server may ask for a nonce; the request is then made once more.
async function twice(ask, read) {
  try {
    return await read(await ask());
  } catch (failure) {
    if (!oauth.isDPoPNonceError(failure)) throw failure;
    return read(await ask());
  }
}

export const jobs = {
  async configure({ issuer, client_id, kid, private_jwk }) {
    const key = await importJWK(private_jwk, "ES256");
    const found = await oauth.discoveryRequest(new URL(issuer), { algorithm: "oauth2", ...insecure });
    server = await oauth.processDiscoveryResponse(new URL(issuer), found);
    client = { client_id };
    authentication = oauth.PrivateKeyJwt({ key, kid });
    DPoP = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
    return server;
  },

  token: ({ parameters }) =>
    twice(
      () => oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, { DPoP, ...insecure }),
      (answer) => oauth.processClientCredentialsResponse(server, client, answer),
    ),

  call: ({ token, method, url, body, headers }) =>
    twice(
      () =>
        oauth.protectedResourceRequest(token, method, new URL(url), new Headers(headers), body ?? undefined, {
          DPoP,
          ...insecure,
        }),
      async (answer) => ({
        status: answer.status,
        headers: Object.fromEntries(answer.headers),
        body: await answer.text(),
      }),
    ),
};
