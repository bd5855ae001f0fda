"""Two users of matrix-nio chat on the server whose URL is the argument; prints `done`."""

import asyncio
import sys

from nio import AsyncClient, RoomMessageText, MatrixRoom, responses


def good(response, kind):
    assert isinstance(response, kind), f"{response!r} is no {kind.__name__}"
    return response


async def main(url):
    alice, bob = AsyncClient(url, "alice"), AsyncClient(url, "bob")
    for client, name in ((alice, "alice"), (bob, "bob")):
        good(await client.register(name, f"password of {name}", "nio"), responses.RegisterResponse)
        await client.logout()
        good(await client.login(f"password of {name}"), responses.LoginResponse)

    room = good(
        await alice.room_create(name="Amtsstube", invite=[bob.user_id]),
        responses.RoomCreateResponse,
    ).room_id
    first = good(await bob.sync(timeout=5000, full_state=True), responses.SyncResponse)
    assert room in first.rooms.invite, first.rooms
    good(await bob.join(room), responses.JoinResponse)

    heard = []
    bob.add_event_callback(lambda r, e: heard.append(e.body), RoomMessageText)
    for i in range(30):
        good(
            await alice.room_send(room, "m.room.message", {"msgtype": "m.text", "body": f"{i}"}),
            responses.RoomSendResponse,
        )
    for _ in range(20):
        good(await bob.sync(timeout=2000), responses.SyncResponse)
        if "29" in heard:
            break
    assert "29" in heard, heard
    assert len(heard) == len(set(heard)), heard
    assert isinstance(bob.rooms[room], MatrixRoom) and bob.rooms[room].name == "Amtsstube"

    found, token = [], bob.next_batch
    for _ in range(20):
        page = good(
            await bob.room_messages(room, start=token, limit=10), responses.RoomMessagesResponse
        )
        found += [e.body for e in page.chunk if isinstance(e, RoomMessageText)]
        if not page.end or page.end == token:
            break
        token = page.end
    assert found == [f"{i}" for i in reversed(range(30))], found

    good(await bob.set_displayname("Bob vom Amt"), responses.ProfileSetDisplayNameResponse)
    good(await alice.sync(timeout=2000, full_state=True), responses.SyncResponse)
    assert alice.rooms[room].user_name(bob.user_id) == "Bob vom Amt"
    good(await bob.room_leave(room), responses.RoomLeaveResponse)
    for client in (alice, bob):
        await client.close()
    print("done")


asyncio.run(main(sys.argv[1]))
