"""Clients of matrix-nio, as it is published, talk through a server: nio_talk.py URL DIR

The server allows registration (--test-mode). DIR is where the clients keep
their keys. It ends with 1 if anything is not as it should be, which includes
answers and events that do not pass the schemas of the library.
"""

import asyncio
import io
import logging
import os
import struct
import sys
import time
import zlib

import nio
from nio import AsyncClient, AsyncClientConfig, ErrorResponse, api
from nio.events.misc import BadEvent, UnknownBadEvent

URL, DIR = sys.argv[1:]
PASSWORD = "correct horse battery"
TURNS = 60  # each waits for something new for at most a second

complaints, everyone = [], []


class Complaints(logging.Handler):
    """Collects what does not pass the schemas of the library."""

    def emit(self, record):
        complaints.append(record.getMessage())


# Not nio.crypto: it reports each key that has yet to come.
for name in ("nio.responses", "nio.events"):
    logging.getLogger(name).addHandler(Complaints(logging.WARNING))


async def ok(call):
    answer = await call
    if isinstance(answer, tuple):  # of upload: with the key
        answer = answer[0]
    assert not isinstance(answer, ErrorResponse), f"{answer}; {complaints}"
    # Some classes of the library take a refusal for an answer.
    status = getattr(answer.transport_response, "status", 200)
    assert 200 <= status < 300, f"{answer}: {status}"
    return answer


async def refused(call, code):
    said = len(complaints)
    answer = await call
    assert isinstance(answer, ErrorResponse) and answer.status_code == code, f"{answer}, want {code}"
    del complaints[said:]


class Person(AsyncClient):
    """A client that keeps what it got, by the ID of the event."""

    def __init__(self, name):
        config = AsyncClientConfig(store_sync_tokens=False, encryption_enabled=True, max_timeouts=1, max_limit_exceeded=1)
        super().__init__(URL, name, store_path=os.path.join(DIR, name), config=config)
        os.makedirs(self.store_path, exist_ok=True)
        everyone.append(self)
        self.got, self.left = {}, set()
        self.add_event_callback(self.keep, nio.Event)
        self.add_event_callback(self.keep, nio.InviteEvent)

    def keep(self, _, event):
        assert not isinstance(event, (BadEvent, UnknownBadEvent)), event.source
        self.got[getattr(event, "event_id", None)] = event

    async def turn(self):
        """One round of what sync_forever does."""
        self.left |= set((await ok(self.sync(timeout=1000 if self.next_batch else 0))).rooms.leave)
        for answer in await self.send_to_device_messages():
            assert not isinstance(answer, ErrorResponse), answer
        if self.should_upload_keys:
            await ok(self.keys_upload())
        if self.should_query_keys:
            await ok(self.keys_query())
        if self.should_claim_keys:
            await ok(self.keys_claim(self.get_users_for_key_claiming()))


async def until(what, holds, *people):
    """Lets people sync until it holds."""
    for _ in range(TURNS):
        if found := holds():
            return found
        await asyncio.gather(*(p.turn() for p in people))
    raise AssertionError(f"never: {what}")


async def say(person, room, body, **more):
    content = {"msgtype": "m.text", "body": body, **more}
    return (await ok(person.room_send(room, "m.room.message", content, ignore_unverified_devices=True))).event_id


async def accounts(name):
    """Two people, and a second device of the first."""
    alice, bob, phone = Person(f"alice{name}"), Person(f"bob{name}"), Person(f"alice{name}")
    assert "m.login.password" in (await ok(alice.login_info())).flows
    await ok(alice.register(alice.user, PASSWORD, "desk"))
    await refused(phone.register(alice.user, PASSWORD), "M_USER_IN_USE")
    await refused(phone.login("wrong"), "M_FORBIDDEN")
    await ok(phone.login(PASSWORD, "phone"))
    await ok(bob.register(bob.user, PASSWORD, "desk"))
    who = await ok(phone.whoami())
    assert (who.user_id, who.device_id) == (alice.user_id, phone.device_id), who
    await asyncio.gather(*(p.turn() for p in (alice, bob, phone)))
    return alice, bob, phone


async def rooms(alice, bob, name):
    """A public room with an alias, found, joined, and told about itself."""
    room = (await ok(alice.room_create(
        api.RoomVisibility.public, alias=f"hall{name}", name="Hall", topic="All", preset=api.RoomPreset.public_chat,
        invite=[bob.user_id], power_level_override={"users_default": 10},
    ))).room_id
    alias = f"#hall{name}:{alice.user_id.split(':', 1)[1]}"
    await until("bob is invited", lambda: bob.invited_rooms.get(room), bob)
    assert bob.invited_rooms[room].inviter == alice.user_id and bob.invited_rooms[room].name == "Hall"
    assert (await ok(bob.room_resolve_alias(alias))).room_id == room
    assert room in [r.room_id for r in (await ok(bob.list_public_rooms(filter_generic_search_term="Hall"))).public_rooms]
    assert (await ok(bob.join(alias))).room_id == room
    await until("both are in it", lambda: all(room in p.rooms and len(p.rooms[room].users) == 2 for p in (alice, bob)), alice, bob)
    assert bob.rooms[room].display_name == "Hall" and bob.rooms[room].topic == "All" and bob.rooms[room].join_rule == "public"
    assert bob.rooms[room].power_levels.defaults.users_default == 10 and bob.rooms[room].canonical_alias == alias
    assert len((await ok(bob.joined_members(room))).members) == 2 and (await ok(bob.joined_rooms())).rooms == [room]
    await ok(alice.update_room_topic(room, "Some"))
    await refused(bob.update_room_topic(room, "None"), "M_FORBIDDEN")
    assert (await ok(bob.room_get_state_event(room, "m.room.topic"))).content["topic"] == "Some"
    await refused(bob.room_get_state_event(room, "no.such"), "M_NOT_FOUND")
    assert {"m.room.create", "m.room.topic"} <= {e["type"] for e in (await ok(bob.room_get_state(room))).events}

    closed = (await ok(alice.room_create(name="Closed", space=True))).room_id
    await refused(bob.join(closed), "M_FORBIDDEN")
    await alice.turn()
    await ok(alice.room_enable_knocking(closed))
    await ok(bob.room_knock(closed, "please"))
    await ok(alice.room_invite(closed, bob.user_id))
    await ok(bob.join(closed))
    await ok(alice.room_put_state(closed, "m.space.child", {"via": ["x"]}, room))
    assert [r["room_id"] for r in (await ok(bob.space_get_hierarchy(closed))).rooms] == [closed, room]
    await until("bob is in the space", lambda: closed in bob.rooms, bob)
    await ok(alice.room_kick(closed, bob.user_id, "out"))
    await ok(alice.room_ban(closed, bob.user_id))
    await refused(bob.join(closed), "M_FORBIDDEN")
    await ok(alice.room_unban(closed, bob.user_id))
    await until("bob is out of the space", lambda: closed in bob.left, bob)
    await ok(bob.room_forget(closed))
    return room


async def messages(alice, bob, room):
    """What is said, changed, taken back and read, live and from history."""
    first = await say(alice, room, "first")
    again = {"msgtype": "m.text", "body": "once"}
    once = [(await ok(alice.room_send(room, "m.room.message", again, tx_id="txn"))).event_id for _ in range(2)]
    assert once[0] == once[1], once
    edit = await say(alice, room, "* 1st", **{
        "m.new_content": {"msgtype": "m.text", "body": "1st"}, "m.relates_to": {"rel_type": "m.replace", "event_id": first},
    })
    like = (await ok(bob.room_send(room, "m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": first, "key": "👍"}}))).event_id
    thread = [await say(bob, room, f"reply {i}", **{"m.relates_to": {"rel_type": "m.thread", "event_id": first}}) for i in range(3)]
    gone = await say(alice, room, "gone")
    await ok(alice.room_redact(room, gone, "a slip"))
    last = await say(alice, room, "last")
    sent = [first, once[0], edit, like, *thread, gone, last]
    await until("both got it", lambda: all(e in p.got for e in sent for p in (alice, bob)), alice, bob)
    assert isinstance(alice.got[like], nio.ReactionEvent) and alice.got[like].reacts_to == first

    fresh = Person(bob.user)
    fresh.restore_login(bob.user_id, bob.device_id, bob.access_token)
    back, token = [], None
    while token or not back:
        page = await ok(fresh.room_messages(room, token, limit=4))
        back, token = back + page.chunk, page.end
    assert not [e for e in back if isinstance(e, (BadEvent, UnknownBadEvent))]
    assert [e.event_id for e in back if e.event_id in sent] == sent[::-1], "the order of the history"
    assert isinstance(next(e for e in back if e.event_id == gone), nio.RedactedEvent)
    middle = await ok(bob.room_context(room, thread[1], limit=2))
    assert (middle.events_before[0].event_id, middle.events_after[0].event_id) == (thread[0], thread[2])
    about = [e.event_id async for e in alice.room_get_event_relations(room, first, limit=2)]
    assert sorted(about) == sorted([edit, like, *thread]), about
    in_thread = alice.room_get_event_relations(room, first, api.RelationshipType.thread, limit=2, direction=api.MessageDirection.front)
    assert [e.event_id async for e in in_thread] == thread
    assert [e.event_id async for e in bob.room_get_threads(room, api.ThreadInclusion.participated)] == [first]
    assert (await ok(bob.room_get_event(room, first))).event.source["unsigned"]["m.relations"]["m.thread"]["count"] == 3
    await refused(bob.room_redact(room, edit), "M_FORBIDDEN")

    assert bob.rooms[room].unread_notifications > 0
    await ok(bob.update_receipt_marker(room, last))
    await ok(bob.update_receipt_marker(room, last, api.ReceiptType.read_private))
    await ok(bob.room_read_markers(room, last, last))
    await ok(bob.room_typing(room, True, 20_000))
    await until("alice sees bob type", lambda: bob.user_id in alice.rooms[room].typing_users, alice)
    await until("alice sees what bob read", lambda: bob.user_id in alice.rooms[room].read_receipts, alice)
    await until("bob has read it", lambda: bob.rooms[room].fully_read_marker == last and not bob.rooms[room].unread_notifications, bob)


def picture(side):
    """A PNG of one colour."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x20\x60\xa0" * side) * side
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def people(alice, bob, phone):
    """Profiles, media, presence, rules, filters and devices."""
    png = picture(300)
    mxc = (await ok(alice.upload(io.BytesIO(png), "image/png", "ä b.png", filesize=len(png)))).content_uri
    got = await ok(bob.download(mxc))
    assert (got.body, got.content_type, got.filename) == (png, "image/png", "ä b.png"), got
    for method in api.ResizingMethod:
        small = await ok(bob.thumbnail(*mxc.removeprefix("mxc://").split("/"), 64, 64, method))
        assert small.content_type.startswith("image/") and small.body != png
    assert (await ok(alice.content_repository_config())).upload_size > len(png)
    await ok(alice.set_avatar(mxc))
    await ok(alice.set_displayname("Alice ☺"))
    profile = await ok(bob.get_profile(alice.user_id))
    assert (profile.displayname, profile.avatar_url) == ("Alice ☺", mxc), profile
    await until("bob sees the name", lambda: any(r.user_name(alice.user_id) == "Alice ☺" for r in bob.rooms.values()), bob)
    await ok(alice.set_presence("unavailable", "at lunch"))
    assert (await ok(bob.get_presence(alice.user_id))).status_msg == "at lunch"
    assert (await ok(alice.get_openid_token(alice.user_id))).access_token

    kind = api.PushRuleKind.override
    await ok(bob.set_pushrule("global", kind, "mine", actions=[nio.PushNotify()], conditions=[nio.PushEventMatch("content.body", "x*")]))
    await ok(bob.enable_pushrule("global", kind, "mine", False))
    await ok(bob.set_pushrule_actions("global", kind, "mine", [nio.PushSetTweak("highlight", True)]))
    await ok(bob.delete_pushrule("global", kind, "mine"))

    chosen = (await ok(bob.upload_filter(room={"timeline": {"limit": 1, "types": ["m.room.message"]}}))).filter_id
    first = await ok(Person.sync(bob, since="", sync_filter=chosen, full_state=True))
    assert all(len(r.timeline.events) <= 1 and r.state for r in first.rooms.join.values())

    await ok(alice.update_device(phone.device_id, {"display_name": "mobile"}))
    assert {d.id: d.display_name for d in (await ok(alice.devices())).devices}[phone.device_id] == "mobile"


async def encryption(alice, bob, phone):
    """Encrypted messages, verification by emoji, keys asked for and carried by file."""
    state = [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
    room = (await ok(alice.room_create(is_direct=True, invite=[bob.user_id], initial_state=state))).room_id
    await ok(bob.join(room))
    await until("all know the devices", lambda: all(
        room in p.rooms and p.rooms[room].encrypted and p.device_store[alice.user_id].keys() | p.device_store[bob.user_id].keys()
        >= {q.device_id for q in (alice, bob, phone)} - {p.device_id} for p in (alice, bob)
    ), alice, bob)

    async def secret(sender, body, *readers):
        event = await say(sender, room, body)
        await until(f"{body} is read", lambda: all(getattr(p.got.get(event), "body", 0) == body for p in readers), *readers)
        assert all(p.got[event].decrypted for p in readers)
        return event

    await secret(alice, "for bob and the phone", bob, phone)
    await secret(bob, "for alice and her phone", alice, phone)

    # Verification by emoji, of each other.
    desk = bob.device_store[alice.user_id][alice.device_id]
    await ok(bob.start_key_verification(desk))
    (txn,) = bob.key_verifications
    await until("alice is asked", lambda: txn in alice.key_verifications, alice)
    await ok(alice.accept_key_verification(txn))
    sas = [p.key_verifications[txn] for p in (alice, bob)]
    await until("both see emoji", lambda: all(s.established_sas for s in sas), alice, bob)
    assert sas[0].get_emoji() == sas[1].get_emoji()
    for p in (alice, bob):
        await ok(p.confirm_short_auth_string(txn))
    await until("both are verified", lambda: all(s.verified for s in sas), alice, bob)
    assert bob.olm.is_device_verified(desk)

    # A new device is without the keys: it asks another of its user for one.
    event = await secret(bob, "before the tablet", alice)
    tablet = Person(alice.user)
    await ok(tablet.login(PASSWORD, "tablet"))
    await until("the tablet has the event", lambda: event in tablet.got, tablet)
    assert isinstance(tablet.got[event], nio.MegolmEvent)
    await until("they know of each other", lambda: tablet.device_id in alice.device_store[alice.user_id] and alice.device_id in tablet.device_store[alice.user_id], alice, tablet)
    tablet.verify_device(tablet.device_store[alice.user_id][alice.device_id])
    alice.verify_device(alice.device_store[alice.user_id][tablet.device_id])
    await ok(tablet.request_room_key(tablet.got[event]))
    session = tablet.got[event].session_id
    await until("the key came", lambda: session not in tablet.outgoing_key_requests, alice, tablet)
    assert tablet.decrypt_event(tablet.got[event]).body == "before the tablet"

    # A file has them all.
    path = os.path.join(DIR, "keys")
    await alice.export_keys(path, "passphrase", 10)
    other = Person(alice.user)
    await ok(other.login(PASSWORD, "laptop"))
    await other.import_keys(path, "passphrase")
    await until("the laptop reads it", lambda: getattr(other.got.get(event), "body", 0) == "before the tablet", other)

    # Devices end with the password, and their tokens with them.
    ends = [tablet.device_id, other.device_id]
    of_alice = bob.device_store[alice.user_id]
    await until("bob knows of them", lambda: of_alice.keys() >= set(ends), bob)
    asks = await alice.delete_devices(ends)
    assert isinstance(asks, nio.DeleteDevicesAuthResponse), asks
    await ok(alice.delete_devices(ends, {"type": "m.login.password", "user": alice.user_id, "password": PASSWORD, "session": asks.session}))
    await refused(tablet.whoami(), "M_UNKNOWN_TOKEN")
    await until("bob knows they are gone", lambda: all(d not in of_alice or of_alice[d].deleted for d in ends), bob)


async def talk():
    name = str(time.time_ns())
    alice, bob, phone = await accounts(name)
    room = await rooms(alice, bob, name)
    await messages(alice, bob, room)
    await people(alice, bob, phone)
    await encryption(alice, bob, phone)
    await ok(phone.logout())
    await ok(bob.logout(all_devices=True))
    assert not complaints, complaints


async def main():
    try:
        await asyncio.wait_for(talk(), 120)
    finally:
        for person in everyone:
            await person.close()


asyncio.run(main())
print("passed")
