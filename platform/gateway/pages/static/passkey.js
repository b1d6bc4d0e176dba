// The one script of the pages: hands the browser's passkey dialogue what the bank asks, and posts what it answers.
(function () {
  "use strict";

  function toBytes(text) {
    const padded = text.replace(/-/g, "+").replace(/_/g, "/") + "===".slice((text.length + 3) % 4);
    return Uint8Array.from(atob(padded), (letter) => letter.charCodeAt(0));
  }

  function toText(buffer) {
    const bytes = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte));
    return btoa(bytes.join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  function named(list) {
    return (list || []).map((item) => Object.assign({}, item, { id: toBytes(item.id) }));
  }

  async function create(options) {
    const user = Object.assign({}, options.user, { id: toBytes(options.user.id) });
    const credential = await navigator.credentials.create({
      publicKey: Object.assign({}, options, {
        challenge: toBytes(options.challenge), user: user, excludeCredentials: named(options.excludeCredentials),
      }),
    });
    return {
      id: credential.id, rawId: toText(credential.rawId), type: credential.type,
      response: {
        clientDataJSON: toText(credential.response.clientDataJSON),
        attestationObject: toText(credential.response.attestationObject),
      },
    };
  }

  async function get(options) {
    const credential = await navigator.credentials.get({
      publicKey: Object.assign({}, options, {
        challenge: toBytes(options.challenge), allowCredentials: named(options.allowCredentials),
      }),
    });
    const answer = credential.response;
    return {
      id: credential.id, rawId: toText(credential.rawId), type: credential.type,
      response: {
        clientDataJSON: toText(answer.clientDataJSON), authenticatorData: toText(answer.authenticatorData),
        signature: toText(answer.signature), userHandle: answer.userHandle ? toText(answer.userHandle) : null,
      },
    };
  }

  document.querySelectorAll("form[data-passkey]").forEach((form) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const failed = form.querySelector("[data-failed]");
      failed.hidden = true;
      try {
        const ask = form.dataset.passkey === "create" ? create : get;
        form.elements.credential.value = JSON.stringify(await ask(JSON.parse(form.dataset.options)));
        form.submit();
      } catch (refused) {
        failed.hidden = false;
      }
    });
  });
})();
