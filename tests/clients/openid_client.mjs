// The npm package `openid-client` as a partner would use it: discovery, private_key_jwt, DPoP.

import * as client from "openid-client";
import { importJWK } from "jose";

let config, DPoP, started;

export const jobs = {
  async configure({ issuer, client_id, kid, private_jwk }) {
    const key = await importJWK(private_jwk, "ES256");
    config = await client.discovery(
      new URL(issuer), client_id, { use_mtls_endpoint_aliases: false }, client.PrivateKeyJwt({ key, kid }),
      { execute: [client.allowInsecureRequests], algorithm: "oauth2" },
    );
    DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256"));
    return config.serverMetadata();
  },

  token: ({ parameters }) => client.clientCredentialsGrant(config, parameters, { DPoP }),

  async call({ token, method, url, body, headers }) {
    const answer = await client.fetchProtectedResource(
      config, token, new URL(url), method, body ?? undefined, new Headers(headers), { DPoP },
    );
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
  },
};
