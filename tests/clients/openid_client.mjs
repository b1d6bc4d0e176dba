// The npm package `openid-client` as a partner would use it: discovery, private_key_jwt, DPoP.

import * as client from "openid-client";
import { importJWK } from "jose";
import { makeSignedFetch } from "./signed_fetch.mjs";
import { makeKey, makeSm2Fetch } from "./sm2_fetch.mjs";

let config, DPoP;
const signing = {};
const waiting = new Map();

export const jobs = {
  // Without a private key it is a public client, as on a phone.
  async configure({ issuer, client_id, kid, private_jwk }) {
    const authentication = private_jwk
      ? client.PrivateKeyJwt({ key: await importJWK(private_jwk, "ES256"), kid })
      : client.None();
    config = await client.discovery(
      new URL(issuer), client_id, { use_mtls_endpoint_aliases: false }, authentication,
      { execute: [client.allowInsecureRequests], algorithm: "oauth2" },
    );
    DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256"));
    const metadata = config.serverMetadata();
    if (private_jwk) signing.fapi = makeSignedFetch({ kid, private_jwk, jwks_uri: metadata.jwks_uri });
    return metadata;
  },

  // A key on the national curve; the public half is registered by the bank, under this number.
  sm2_key({ serial_no, keys_uri }) {
    const { privateKey, jwk } = makeKey();
    signing.sm2 = makeSm2Fetch({ client_id: config.clientMetadata().client_id, serial_no, privateKey, keys_uri });
    return jwk;
  },

  token: ({ parameters }) => client.clientCredentialsGrant(config, parameters, { DPoP }),

  push: ({ parameters }) => send((request) => client.buildAuthorizationUrlWithPAR(config, request, { DPoP }), parameters),

  begin: async ({ parameters }) =>
    send((request) => client.buildAuthorizationUrl(config, request), {
      ...parameters,
      dpop_jkt: await DPoP.calculateThumbprint(),
    }),

  redeem: ({ address, answer }) =>
    client.authorizationCodeGrant(config, new URL(answer), waiting.get(address), {}, { DPoP }),

  refresh: ({ refresh_token, parameters }) => client.refreshTokenGrant(config, refresh_token, parameters, { DPoP }),

  ask: ({ parameters }) => client.initiateBackchannelAuthentication(config, parameters),

  collect: ({ asked }) => client.pollBackchannelAuthenticationGrant(config, asked, {}, { DPoP }),

  introspect: ({ token }) => client.tokenIntrospection(config, token),

  revoke: ({ token }) => client.tokenRevocation(config, token),

  async call({ token, method, url, body, headers, signed }) {
    if (signed) config[client.customFetch] = signing[signed];
    try {
      const answer = await client.fetchProtectedResource(
        config, token, new URL(url), method, body ?? undefined, new Headers(headers), { DPoP },
      );
      return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
    } finally {
      config[client.customFetch] = undefined;
    }
  },
};

// The address to send the member to; what the client must keep until the member returns stays here.
async function send(build, parameters) {
  const verifier = client.randomPKCECodeVerifier();
  const state = client.randomState();
  const code_challenge = await client.calculatePKCECodeChallenge(verifier);
  const address = await build({ ...parameters, state, code_challenge, code_challenge_method: "S256" });
  waiting.set(address.href, { pkceCodeVerifier: verifier, expectedState: state });
  return address.href;
}
