// Two users chat through matrix-js-sdk: one with sliding sync, one with classic sync.
import * as sdk from "matrix-js-sdk";
import { SlidingSync, SlidingSyncEvent, SlidingSyncState } from "matrix-js-sdk/lib/sliding-sync.js";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.disableAll?.();
const [base] = process.argv.slice(2);

async function user(name) {
    const client = sdk.createClient({ baseUrl: base });
    const password = `password of ${name}`;
    const answer = await client.registerRequest({
        username: name,
        password,
        auth: { type: "m.login.dummy" },
    }).catch(async (error) => {
        const session = error.data.session;
        return client.registerRequest({ username: name, password, auth: { type: "m.login.dummy", session } });
    });
    return sdk.createClient({
        baseUrl: base,
        accessToken: answer.access_token,
        userId: answer.user_id,
        deviceId: answer.device_id,
        timelineSupport: true,
    });
}

/** Resolves once `test` gives something for an event of the client. */
function until(client, event, test) {
    return new Promise((resolve) => {
        const listen = (...args) => {
            const found = test(...args);
            if (found) {
                client.off(event, listen);
                resolve(found);
            }
        };
        client.on(event, listen);
    });
}

const says = (room, text) => (event, inRoom) =>
    inRoom?.roomId === room && event.getContent().body === text && !event.status && event;

const [alice, bob] = [await user("alice"), await user("bob")];
const { room_id: room } = await alice.createRoom({ preset: "public_chat", name: "js" });
await bob.joinRoom(room);
for (let n = 0; n < 30; n++) await alice.sendTextMessage(room, `before ${n}`);

const lists = new Map([["all", {
    ranges: [[0, 9]],
    sort: ["by_recency"],
    timeline_limit: 5,
    required_state: [["m.room.name", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"], ["m.room.create", ""]],
}]]);
const sliding = new SlidingSync(base, lists, { timeline_limit: 20, required_state: [["*", "*"]] }, bob, 5000);
const listed = new Promise((resolve) => {
    sliding.on(SlidingSyncEvent.Lifecycle, (state) => state === SlidingSyncState.Complete && resolve());
});
const heard = until(bob, "Room.timeline", says(room, "hello bob"));
await bob.startClient({ slidingSync: sliding, lazyLoadMembers: true });
await alice.startClient({ initialSyncLimit: 5, lazyLoadMembers: true });
await until(alice, "sync", (state) => state === "PREPARED" || state === "SYNCING");
await listed;
const seen = bob.getRoom(room);
if (seen.name !== "js") throw new Error(`the room is called ${seen.name}`);
if (sliding.getListData("all").joinedCount !== 1) throw new Error("the list does not count one room");
const typing = until(bob, "RoomMember.typing", (event, member) => member.userId === alice.getUserId() && member.typing);
await alice.sendTyping(room, true, 20000);
await typing;
const receipt = until(alice, "Room.receipt", (event, inRoom) => inRoom.roomId === room &&
    JSON.stringify(event.getContent()).includes(bob.getUserId()));
await alice.sendTextMessage(room, "hello bob");
await bob.sendReadReceipt(await heard);
await receipt;
const back = until(alice, "Room.timeline", says(room, "hello alice"));
await bob.sendTextMessage(room, "hello alice");
await back;
const invited = until(bob, "Room.myMembership", (inRoom, membership) => membership === "invite" && inRoom);
await alice.createRoom({ name: "second", invite: [bob.getUserId()] });
const second = await invited;
const joined = until(bob, "Room.myMembership", (inRoom, membership) =>
    inRoom.roomId === second.roomId && membership === "join");
await bob.joinRoom(second.roomId);
await joined;
console.log("all heard");
alice.stopClient();
bob.stopClient();
process.exit(0);
