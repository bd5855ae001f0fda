// Users of several servers in an encrypted room, with the cryptography of Element: cross-signing,
// verification, key backup, devices that come and go. BASE is a server for each: Alice, Bob, Carol.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { VerificationPhase } from "matrix-js-sdk/lib/crypto-api/index.js";

// The library tells much.
logger.disableAll?.();
for (const level of ["debug", "info", "log", "warn"]) console[level] = () => {};
const bases = process.argv.slice(2);
const names = ["alice", "bob", "carol"].slice(0, bases.length);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// What is waited for of servers; shown where this ends before its end.
const pending = new Set();
async function fetchFn(url, options) {
    const request = `${options?.method} ${String(url).split("?")[0]} since ${new Date().toISOString()}`;
    pending.add(request);
    return fetch(url, options).finally(() => pending.delete(request));
}
let under_way = "start";
process.on("SIGTERM", () => {
    process.stderr.write(`ended during ${under_way}; unanswered:\n${[...pending].join("\n")}\n`, () => process.exit(1));
});

/** Resolves once `test` gives something: asked again and again, as nothing tells of all that is meant. */
async function until(what, test) {
    under_way = what;
    const end = Date.now() + 60_000;
    for (;;) {
        const found = await test();
        if (found) return found;
        if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
}

function assert(holds, what) {
    if (!holds) throw new Error(what);
}

/** Whoever runs this restarts a server while we wait. */
async function ask(what) {
    process.stdout.write(`${what}\n`);
    await lines.next();
}

async function register(base, name) {
    const client = sdk.createClient({ baseUrl: base, fetchFn });
    const request = { username: name, password: `password of ${name}`, inhibit_login: true };
    const session = await client.registerRequest(request).then(() => undefined, (error) => error.data.session);
    await client.registerRequest({ ...request, auth: { type: "m.login.dummy", session } });
}

/** Logs a new device in and lets it sync. `secret` holds the key of the secret storage. */
async function device(base, name, secret) {
    const login = await sdk.createClient({ baseUrl: base, fetchFn }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: name },
        password: `password of ${name}`,
        initial_device_display_name: `device of ${name} ${randomUUID()}`,
    });
    const client = sdk.createClient({
        baseUrl: base,
        fetchFn,
        accessToken: login.access_token,
        userId: login.user_id,
        deviceId: login.device_id,
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], secret.key],
            cacheSecretStorageKey: (_id, _info, key) => (secret.key = key),
        },
    });
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 100 });
    await until(`the sync of ${name}`, () => client.isInitialSyncComplete());
    return client;
}

const clear = (event) => event.getType() === "m.room.message" && !event.isDecryptionFailure() && event.getContent().body;
const find = (client, room, text) =>
    client.getRoom(room)?.getLiveTimeline().getEvents().find((event) => clear(event) === text);

async function say(client, room, text) {
    under_way = `saying ${text}`;
    await client.sendTextMessage(room, text);
    return text;
}

async function allHear(clients, room, text) {
    for (const client of clients) {
        const who = `${client.getUserId()} ${client.getDeviceId()}`;
        const event = await until(`${text} at ${who}`, () => find(client, room, text));
        assert(event.isEncrypted(), `${text} was not encrypted`);
    }
}

// The library holds what is under way by weak references alone: what nobody else holds is collected and never ends.
const held = [];

/** Two users compare the same emojis. Asks for what is there instead of waiting for news of it, which may have come before. */
async function verify(one, other, room) {
    const request = await one.getCrypto().requestVerificationDM(other.getUserId(), room);
    const theirs = await until("the request at the other", () =>
        other.getCrypto().findVerificationRequestDMInProgress(room, one.getUserId()));
    held.push(request, theirs);
    await theirs.accept();
    await until("the request to be ready", () => request.phase === VerificationPhase.Ready);
    const shown = [];
    const compare = async (who, verifier) => {
        held.push(verifier);
        const done = verifier.verify();
        const callbacks = await until(`the numbers of ${who}`, () => verifier.getShowSasCallbacks());
        shown.push(JSON.stringify(callbacks.sas.decimal));
        await until("both to see the numbers", () => shown.length === 2);
        assert(shown[0] === shown[1], `${shown} are not the same`);
        await callbacks.confirm();
        under_way = `the end of the verification of ${who}`;
        await done;
    };
    await Promise.all([
        request.startVerification("m.sas.v1").then((verifier) => compare("the one", verifier)),
        until("the start at the other", () => theirs.verifier).then((verifier) => compare("the other", verifier)),
    ]);
    for (const [from, to] of [[one, other], [other, one]]) {
        await until("the verification to be seen", async () =>
            (await from.getCrypto().getUserVerificationStatus(to.getUserId())).isCrossSigningVerified());
    }
}

await Promise.all(names.map((name, n) => register(bases[n], name)));
const secrets = names.map(() => ({}));
const firsts = await Promise.all(names.map((name, n) => device(bases[n], name, secrets[n])));
const [alice, bob] = firsts;
for (const client of firsts) {
    await client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: (make) => make(null) });
}
await alice.getCrypto().bootstrapSecretStorage({
    createSecretStorageKey: () => alice.getCrypto().createRecoveryKeyFromPassphrase("a secret"),
    setupNewKeyBackup: true,
});
const { room_id: room } = await alice.createRoom({
    preset: "private_chat",
    invite: firsts.slice(1).map((client) => client.getUserId()),
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
});
for (const client of firsts.slice(1)) {
    await until("the invitation", () => client.getRoom(room)?.getMyMembership() === "invite");
    await client.joinRoom(room);
}
for (const client of firsts) {
    await until("all to be there", () => client.getRoom(room)?.getJoinedMemberCount() === firsts.length);
}

const old = [];
for (const client of firsts) {
    old.push(await say(client, room, `first words of ${client.getUserId()}`));
    await allHear(firsts, room, old.at(-1));
}
await verify(alice, bob, room);

// A server ends in the middle of it.
await ask("restart");
for (const client of firsts) {
    old.push(await say(client, room, `after the restart, ${client.getUserId()}`));
}
for (const text of old) await allHear(firsts, room, text);
await until("the backup", async () => {
    const backup = await alice.http.authedRequest("GET", "/room_keys/version");
    return backup.count >= firsts.length;
});

// A new device has the history from the backup, and is trusted by who trusts its owner.
const second = await device(bases[0], "alice", secrets[0]);
await second.getCrypto().userHasCrossSigningKeys(alice.getUserId(), true);
await second.getCrypto().bootstrapCrossSigning({});
await second.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
const restored = await second.getCrypto().restoreKeyBackup();
assert(restored.imported >= firsts.length, `only ${restored.imported} keys were restored`);
for (const event of second.getRoom(room).getLiveTimeline().getEvents()) {
    if (event.isDecryptionFailure()) await event.attemptDecryption(second.getCrypto(), { isRetry: true });
}
for (const text of old) await allHear([second], room, text);
await until("the new device to be trusted", async () => {
    const status = await bob.getCrypto().getDeviceVerificationStatus(alice.getUserId(), second.getDeviceId());
    return status?.crossSigningVerified;
});
const everywhere = [...firsts, second];
for (const client of everywhere) {
    await allHear(everywhere, room, await say(client, room, `with two devices, ${client.getDeviceId()}`));
}

// A removed device hears nothing any more, even where it gets hold of what is said.
await alice.logout(true);
await until("the device to be gone", async () => {
    const devices = await bob.getCrypto().getUserDeviceInfo([alice.getUserId()], true);
    return !devices.get(alice.getUserId()).has(alice.getDeviceId());
});
const left = [...firsts.slice(1), second];
for (const client of left) {
    const text = await say(client, room, `without the first device, ${client.getDeviceId()}`);
    await allHear(left, room, text);
    const event = find(second, room, text);
    const overheard = new sdk.MatrixEvent({ ...event.event });
    await overheard.attemptDecryption(alice.getCrypto()).catch(() => {});
    if (client !== second) {
        assert(overheard.isDecryptionFailure(), `a removed device decrypts: ${JSON.stringify(overheard.getClearContent())}`);
    }
}
for (const client of everywhere) client.stopClient();
process.stdout.write("all decrypted\n", () => process.exit(0));
