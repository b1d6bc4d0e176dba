// The npm package `oauth4webapi`, which leaves each step to its user: request, nonce, check of the answer.

import * as oauth from "oauth4webapi";
import { importJWK } from "jose";

const insecure = { [oauth.allowInsecureRequests]: true };
let server, client, authentication, DPoP;
const waiting = new Map();

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
  // Without a private key it is a public client, as on a phone.
  async configure({ issuer, client_id, kid, private_jwk }) {
    const found = await oauth.discoveryRequest(new URL(issuer), { algorithm: "oauth2", ...insecure });
    server = await oauth.processDiscoveryResponse(new URL(issuer), found);
    client = { client_id };
    authentication = private_jwk
      ? oauth.PrivateKeyJwt({ key: await importJWK(private_jwk, "ES256"), kid })
      : oauth.None();
    DPoP = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
    return server;
  },

  token: ({ parameters }) =>
    twice(
      () => oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, { DPoP, ...insecure }),
      (answer) => oauth.processClientCredentialsResponse(server, client, answer),
    ),

  push: ({ parameters }) =>
    send(parameters, async (request) => {
      const pushed = await twice(
        () => oauth.pushedAuthorizationRequest(server, client, authentication, request, { DPoP, ...insecure }),
        (answer) => oauth.processPushedAuthorizationResponse(server, client, answer),
      );
      return { request_uri: pushed.request_uri };
    }),

  begin: async ({ parameters }) =>
    send({ ...parameters, dpop_jkt: await DPoP.calculateThumbprint() }, (request) => request),

  redeem({ address, answer }) {
    const { verifier, state, redirect_uri } = waiting.get(address);
    const checked = oauth.validateAuthResponse(server, client, new URL(answer), state);
    return twice(
      () =>
        oauth.authorizationCodeGrantRequest(server, client, authentication, checked, redirect_uri, verifier, {
          DPoP,
          ...insecure,
        }),
      (given) => oauth.processAuthorizationCodeResponse(server, client, given),
    );
  },

  refresh: ({ refresh_token, parameters }) =>
    twice(
      () =>
        oauth.refreshTokenGrantRequest(server, client, authentication, refresh_token, {
          DPoP,
          additionalParameters: parameters,
          ...insecure,
        }),
      (given) => oauth.processRefreshTokenResponse(server, client, given),
    ),

  async ask({ parameters }) {
    const answer = await oauth.backchannelAuthenticationRequest(server, client, authentication, parameters, insecure);
    return oauth.processBackchannelAuthenticationResponse(server, client, answer);
  },

  collect: ({ asked }) =>
    twice(
      () =>
        oauth.backchannelAuthenticationGrantRequest(server, client, authentication, asked.auth_req_id, {
          DPoP,
          ...insecure,
        }),
      (given) => oauth.processBackchannelAuthenticationGrantResponse(server, client, given),
    ),

  async introspect({ token }) {
    const answer = await oauth.introspectionRequest(server, client, authentication, token, insecure);
    return oauth.processIntrospectionResponse(server, client, answer);
  },

  async revoke({ token }) {
    return oauth.processRevocationResponse(await oauth.revocationRequest(server, client, authentication, token, insecure));
  },

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

// The address to send the member to; what the client must keep until the member returns stays here.
async function send(parameters, shorten) {
  const verifier = oauth.generateRandomCodeVerifier();
  const state = oauth.generateRandomState();
  const code_challenge = await oauth.calculatePKCECodeChallenge(verifier);
  const request = { ...parameters, response_type: "code", state, code_challenge, code_challenge_method: "S256" };
  const address = new URL(server.authorization_endpoint);
  address.search = new URLSearchParams({ client_id: client.client_id, ...(await shorten(request)) });
  waiting.set(address.href, { verifier, state, redirect_uri: parameters.redirect_uri });
  return address.href;
}
