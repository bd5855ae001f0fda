// A user logs in through matrix-js-sdk by OAuth 2.0: this script is the web client, and also the browser.
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { completeAuthorizationCodeGrant, generateOidcAuthorizationUrl } from "matrix-js-sdk/lib/oidc/authorize.js";
import { registerOidcClient } from "matrix-js-sdk/lib/oidc/register.js";
import { OidcTokenRefresher } from "matrix-js-sdk/lib/oidc/tokenRefresher.js";

logger.disableAll?.();
const [base] = process.argv.slice(2);
const redirectUri = "https://chat.amt.example/";
const stored = new Map();
const storage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, value),
    removeItem: (key) => stored.delete(key),
    key: (index) => [...stored.keys()][index] ?? null,
    get length() { return stored.size; },
};
globalThis.localStorage = storage;
globalThis.window = {
    location: { origin: "https://chat.amt.example" },
    sessionStorage: storage,
    localStorage: storage,
};

const client = sdk.createClient({ baseUrl: base });
const metadata = await client.getAuthMetadata();
const clientId = await registerOidcClient(metadata, {
    clientName: "Script",
    clientUri: "https://chat.amt.example/",
    applicationType: "web",
    redirectUris: [redirectUri],
    contacts: [],
});
const url = await generateOidcAuthorizationUrl({
    metadata, clientId, redirectUri, homeserverUrl: base, nonce: "a nonce", prompt: "create",
});

/** Sends a form of the page, as a browser does. */
let cookie = "";
async function submit(address, fields) {
    const answer = await fetch(address, {
        method: "POST",
        redirect: "manual",
        headers: { cookie },
        body: new URLSearchParams(fields),
    });
    if (answer.status !== 303) throw new Error(`the form is answered by ${answer.status}: ${await answer.text()}`);
    cookie = answer.headers.get("set-cookie")?.split(";")[0] ?? cookie;
    return new URL(answer.headers.get("location"), address).href;
}
const password = "a long password";
const here = await submit(url, { step: "register", user: "webuser", new_password: password, again: password });
const page = await (await fetch(here, { headers: { cookie } })).text();
const seal = /name="seal" value="([^"]+)"/.exec(page)[1];
const back = new URL(await submit(here, { step: "allow", seal }));
if (back.origin + back.pathname !== redirectUri) throw new Error(`the browser is sent to ${back}`);

const grant = await completeAuthorizationCodeGrant(back.searchParams.get("code"), back.searchParams.get("state"));
const { tokenResponse, idTokenClaims } = grant;
const session = sdk.createClient({ baseUrl: base, accessToken: tokenResponse.access_token });
const { user_id: userId, device_id: deviceId } = await session.whoami();
if (!userId.startsWith("@webuser:") || idTokenClaims.sub !== userId) throw new Error(`logged in as ${userId}`);
if (!tokenResponse.scope.endsWith(`:${deviceId}`)) throw new Error(`${deviceId} is not of ${tokenResponse.scope}`);

// The tokens are refreshed, and the client goes on with the new ones.
const refresher = new OidcTokenRefresher(metadata.issuer, clientId, redirectUri, deviceId, idTokenClaims);
await refresher.oidcClientReady;
const renewed = await refresher.doRefreshAccessToken(tokenResponse.refresh_token);
const again = sdk.createClient({ baseUrl: base, accessToken: renewed.accessToken, userId, deviceId });
const { room_id: room } = await again.createRoom({ preset: "private_chat" });
const { event_id: sent } = await again.sendTextMessage(room, "hello");
if (!sent) throw new Error("nothing was sent");
await again.startClient({ initialSyncLimit: 5 });
await new Promise((resolve) => again.on("sync", (state) => state === "PREPARED" && resolve()));
if (again.getRoom(room) === null) throw new Error("the room is not there");
again.stopClient();
console.log("logged in");
process.exit(0);
