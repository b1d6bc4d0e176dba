// A fetch that signs by TESSERA-SM2-WITH-SM3 and checks the bank's answer the same way, with the curve of `sm-crypto`.

import { randomUUID } from "node:crypto";
import sm from "sm-crypto";

const NAME = "TESSERA-SM2-WITH-SM3";
const HEADER = "tessera-signature";
const USER_ID = "1234567812345678";
const HOW = { hash: true, der: true, userId: USER_ID };

const lines = (...parts) => parts.map((part) => `${part}\n`).join("");
const members = (field) => Object.fromEntries([...field.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
const hexOf = (base64) => Buffer.from(base64, "base64").toString("hex");

export function makeKey() {
  const { privateKey, publicKey } = sm.sm2.generateKeyPairHex();
  const [x, y] = [publicKey.slice(2, 66), publicKey.slice(66)].map((half) => Buffer.from(half, "hex").toString("base64url"));
  return { privateKey, jwk: { kty: "EC", crv: "SM2", x, y } };
}

export function makeSm2Fetch({ client_id, serial_no, privateKey, keys_uri }) {
  return async (url, options) => {
    const { method, body = "", headers } = options;
    const [timestamp, nonce] = [Math.floor(Date.now() / 1000), randomUUID()];
    const token = headers.authorization.split(" ")[1];
    const key = headers["idempotency-key"] ?? "";
    const text = lines(method, url, timestamp, nonce, sm.sm3(body), sm.sm3(token), key);
    const signature = Buffer.from(sm.sm2.doSignature(text, privateKey, HOW), "hex").toString("base64");
    const given = { app_id: client_id, serial_no, timestamp, nonce, signature };
    const pairs = Object.entries(given).map(([name, value]) => `${name}="${value}"`);
    const answer = await fetch(url, { ...options, headers: { ...headers, [HEADER]: `${NAME} ${pairs.join(",")}` } });
    await check(answer.clone(), method, url, nonce);
    return answer;
  };

  async function check(answer, method, url, asked) {
    const field = answer.headers.get(HEADER);
    if (!field?.startsWith(`${NAME} `)) throw new Error("the answer is not signed by the bank");
    const { serial_no: serial, timestamp, nonce, signature } = members(field);
    const { keys } = await (await fetch(keys_uri)).json();
    const { x, y } = keys.find((each) => each.serial_no === serial);
    const point = "04" + [x, y].map((half) => Buffer.from(half, "base64url").toString("hex")).join("");
    const text = lines(answer.status, method, url, timestamp, nonce, asked, sm.sm3(await answer.text()));
    if (!sm.sm2.doVerifySignature(text, hexOf(signature), point, HOW)) throw new Error("the bank's signature is wrong");
  }
}
