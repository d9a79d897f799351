"""A client and a bridge of mautrix (Python), as it is published, talk through a server:
mautrix_talk.py URL DIR PORT

The server allows registration and knows the application service "bridge", which
listens at PORT of 127.0.0.1 (bridge.yaml). Keys are kept in DIR. It ends with 1 if
anything is not as it should be.
"""

import asyncio
import logging
import os
import sys
import time
import traceback

from mautrix.api import HTTPAPI, Method, Path
from mautrix.appservice import AppService
from mautrix.appservice.state_store.asyncpg import PgASStateStore
from mautrix.client import Client
from mautrix.client.state_store.asyncpg import PgStateStore
from mautrix.crypto import OlmMachine, PgCryptoStateStore, PgCryptoStore
from mautrix.errors import MatrixRequestError, MForbidden, MNotFound, MUnknownToken, SessionNotFound
from mautrix.types import (
    EventType, Filter, Membership, MessageType, PaginationDirection, PresenceState, PushActionType, PushRuleKind,
    PushRuleScope, RoomCreatePreset, RoomDirectoryVisibility, RoomEventFilter, RoomFilter, RoomTagInfo, TextMessageEventContent,
)
from mautrix.util.async_db import Database

URL, DIR, PORT = sys.argv[1:]
PASSWORD = "correct horse battery"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077" "53de0000000c4944415408d763f8cfc00000030101005c1c3a690000000049454e44ae426082"
)
ENCRYPTED = [{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]

complaints = []


class Complaints(logging.Handler):
    """Collects what handlers of the library could not take."""

    def emit(self, record):
        complaints.append(self.format(record))


logging.getLogger("mau").addHandler(Complaints(logging.ERROR))


async def refused(call, kind):
    try:
        answer = await call
    except kind:
        return
    raise AssertionError(f"{answer} instead of {kind}")


async def until(what, holds):
    for _ in range(400):
        if found := holds():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"never: {what}; {complaints}")


async def keys(client, name):
    """Gives a client the stores that bridges have, in a database of its own."""
    db = Database.create(f"sqlite:{os.path.join(DIR, name)}.db", upgrade_table=PgCryptoStore.upgrade_table)
    await db.start()
    await PgStateStore.upgrade_table.upgrade(db)
    client.state_store = PgCryptoStateStore(db)
    client.crypto_store = client.sync_store = PgCryptoStore("", "pickle", db)
    await client.crypto_store.open()
    client.crypto = OlmMachine(client, client.crypto_store, client.state_store)
    return db


async def person(name):
    api = HTTPAPI(URL)
    await api.request(Method.POST, Path.v3.register, {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}})
    client = Client(base_url=URL)
    await client.login(identifier=name, password=PASSWORD, device_name="mautrix")
    await api.session.close()
    client.db = await keys(client, name)
    await client.crypto.load()
    await client.crypto_store.put_device_id(client.device_id)
    await client.crypto.share_keys()
    client.got = {}

    async def keep(event):
        client.got[getattr(event, "event_id", str(event.type))] = event

    for kind in (EventType.ROOM_MESSAGE, EventType.ROOM_MEMBER, EventType.REACTION, EventType.ROOM_REDACTION, EventType.TYPING, EventType.RECEIPT):
        client.add_event_handler(kind, keep)
    client.ignore_initial_sync = client.ignore_first_sync = False
    client.start(None)
    return client


def body(client, event):
    content = getattr(client.got.get(event), "content", None)
    return getattr(content, "body", None)


async def chat(alice, bob, name):
    """The client's calls, each with its answer read by the classes of the library."""
    room = await alice.create_room(
        alias_localpart=name, visibility=RoomDirectoryVisibility.PUBLIC, preset=RoomCreatePreset.PUBLIC, name="Hall", invitees=[bob.mxid],
    )
    server = alice.mxid.split(":", 1)[1]
    assert await bob.join_room(f"#{name}:{server}") == room
    first = await alice.send_text(room, "first", html="<b>first</b>")
    edit = TextMessageEventContent(msgtype=MessageType.TEXT, body="1st")
    edit.set_edit(first)
    edit = await alice.send_message(room, edit)
    like = await bob.react(room, first, "👍")
    gone = await alice.send_text(room, "gone")
    await alice.redact(room, gone, "a slip")
    await until("both got it", lambda: all(e in p.got for e in (first, edit, like, gone) for p in (alice, bob)))
    page = await bob.get_messages(room, PaginationDirection.BACKWARD, limit=100, filter_json=RoomEventFilter(types=[EventType.ROOM_MESSAGE]))
    assert [e.event_id for e in page.events] == [gone, edit, first], page
    around = await bob.get_event_context(room, first, limit=2)
    assert around.event.content.body == "first" and around.events_after[0].event_id == edit
    assert (await bob.get_state_event(room, EventType.ROOM_NAME)).name == "Hall"
    assert (await bob.get_state_event(room, EventType.ROOM_NAME, format="event")).sender == alice.mxid
    assert EventType.ROOM_CREATE in [e.type for e in await bob.get_state(room)]
    assert {m.state_key for m in await bob.get_members(room, membership=Membership.JOIN)} == {alice.mxid, bob.mxid}
    assert set(await bob.get_joined_members(room)) == {alice.mxid, bob.mxid}
    assert room in [r.room_id for r in (await bob.get_room_directory(limit=50, search_query="Hall")).chunk]
    assert (await bob.search_users(bob.mxid[1:6])) is not None

    # Media at the paths that the versions of the server lead to.
    mxc = await alice.upload_media(PNG, mime_type="image/png", filename="ä.png")
    assert await bob.download_media(mxc) == PNG and await bob.download_thumbnail(mxc, 32, 32, "crop")
    later = await alice.upload_media(PNG, mime_type="image/png", async_upload=True)
    assert await bob.download_media(later, timeout_ms=10_000) == PNG
    await alice.set_displayname("Alice ☺")
    await alice.set_avatar_url(mxc)
    profile = await bob.get_profile(alice.mxid)
    assert (profile.displayname, profile.avatar_url) == ("Alice ☺", mxc)

    await alice.set_account_data("com.example", {"a": 1}, room_id=room)
    assert await alice.get_account_data("com.example", room) == {"a": 1}
    await refused(alice.get_account_data("com.example"), MNotFound)
    await alice.set_room_tag(room, "m.favourite", RoomTagInfo(order=0.5))
    assert (await alice.get_room_tag(room, "m.favourite")).order == 0.5
    await alice.remove_room_tag(room, "m.favourite")
    await alice.set_presence(PresenceState.ONLINE, "here")
    assert (await bob.get_presence(alice.mxid)).presence == PresenceState.ONLINE
    await alice.set_push_rule(PushRuleScope.GLOBAL, PushRuleKind.CONTENT, "mine", actions=[PushActionType.NOTIFY], pattern="x")
    assert (await alice.get_push_rule(PushRuleScope.GLOBAL, PushRuleKind.CONTENT, "mine")).pattern == "x"
    chosen = await alice.create_filter(Filter(room=RoomFilter(timeline=RoomEventFilter(limit=3))))
    assert (await alice.get_filter(chosen)).room.timeline.limit == 3
    await bob.set_typing(room, 10_000)
    await bob.send_receipt(room, edit)
    await bob.set_fully_read_marker(room, edit, edit)
    await until("alice sees bob type and read", lambda: {"m.typing", "m.receipt"} <= alice.got.keys())

    closed = await alice.create_room(initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}])
    await bob.knock_room(closed, "please")
    await alice.invite_user(closed, bob.mxid, reason="sure")
    await bob.join_room_by_id(closed)
    await alice.kick_user(closed, bob.mxid, "out")
    await alice.ban_user(closed, bob.mxid)
    await refused(bob.join_room_by_id(closed), MForbidden)
    await alice.unban_user(closed, bob.mxid)
    await bob.forget_room(closed)


async def secrets(alice, bob):
    """Encryption, cross-signing and the keys of it in secret storage."""
    room = await alice.create_room(invitees=[bob.mxid], initial_state=ENCRYPTED)
    await bob.join_room_by_id(room)
    for sender, reader in ((alice, bob), (bob, alice)):
        await until("they know of each other", lambda: [e for e in sender.got.values() if e.room_id == room and getattr(e, "state_key", "") == bob.mxid and e.content.membership == Membership.JOIN])
        said = await sender.send_text(room, f"by {sender.mxid}")
        await until("it is read", lambda: body(reader, said) == f"by {sender.mxid}")
    recovery = await alice.crypto.generate_recovery_key()
    await alice.crypto.verify_with_recovery_key(recovery)
    assert await bob.crypto.get_cross_signing_public_keys(alice.mxid)


async def bridge(alice, name):
    """An application service with users of its own and an encrypted room."""
    db = Database.create(f"sqlite:{os.path.join(DIR, 'bridge')}-as.db", upgrade_table=PgASStateStore.upgrade_table)
    await db.start()
    service = AppService(
        server=URL, domain=alice.mxid.split(":", 1)[1], as_token="as-secret-of-tests", hs_token="hs-secret-of-tests", bot_localpart="bridgebot",
        id="bridge", state_store=PgASStateStore(db), ephemeral_events=True, encryption_events=True,
    )
    got = {}
    # A device as proposal 4190 makes it: the bot has the token of the service alone.
    bot = Client(base_url=URL, mxid=service.bot_mxid)
    bot.db = await keys(bot, "bridge")

    async def keep(event):
        if event.type == EventType.ROOM_ENCRYPTED:
            if event.sender == bot.mxid:
                return
            try:
                event = await bot.crypto.decrypt_megolm_event(event)
            except SessionNotFound as missing:
                await bot.crypto.wait_for_session(event.room_id, missing.session_id, timeout=10)
                event = await bot.crypto.decrypt_megolm_event(event)
        elif event.type.is_state:
            await bot.state_store.update_state(event)
        got[getattr(event, "event_id", str(event.type))] = event

    service.matrix_event_handler(keep)
    service.otk_handler = bot.crypto.handle_as_otk_counts
    service.device_list_handler = bot.crypto.handle_as_device_lists
    service.to_device_handler = bot.crypto.handle_as_to_device_event
    await service.start("127.0.0.1", int(PORT))
    try:
        await service.ping_self()
        await service.intent.ensure_registered()
        ghost = service.intent.user(f"@br_{name}:{service.domain}")
        await ghost.set_displayname("Ghost")
        room = await service.intent.create_room(invitees=[alice.mxid, ghost.mxid], name="Bridged", alias_localpart=f"br_{name}")
        await ghost.join_room_by_id(room)
        await alice.join_room_by_id(room)
        await service.intent.set_power_levels(room, await service.intent.get_power_levels(room))
        said = await ghost.send_text(room, "from afar", timestamp=1_000)
        await until("alice gets it", lambda: body(alice, said) == "from afar")
        assert alice.got[said].timestamp == 1_000
        await ghost.set_typing(room, 10_000)
        await ghost.mark_read(room, said)
        answer = await alice.send_text(room, "hello there")
        await until("the bridge gets it", lambda: answer in got and got[answer].content.body == "hello there")
        await alice.set_typing(room, 10_000)
        await until("the bridge sees alice type", lambda: "m.typing" in got)
        assert (await ghost.get_room_member_info(room, alice.mxid)).membership == Membership.JOIN
        await refused(service.intent.user(f"@other{name}:{service.domain}").send_text(room, "x"), MatrixRequestError)

        bot.api.token = service.as_token
        await bot.create_device_msc4190("BRIDGE" + name, "bridge")
        assert (await bot.whoami()).device_id == "BRIDGE" + name
        await bot.crypto_store.put_device_id(bot.device_id)
        await bot.crypto.load()
        await bot.crypto.share_keys()
        room = await bot.create_room(invitees=[alice.mxid], initial_state=ENCRYPTED)
        await alice.join_room_by_id(room)
        await until("the bridge sees alice join", lambda: any(getattr(e, "state_key", "") == alice.mxid and e.room_id == room and e.content.membership == Membership.JOIN for e in got.values()))
        await bot.crypto.share_group_session(room, [alice.mxid, bot.mxid])
        said = await bot.send_message_event(room, EventType.ROOM_MESSAGE, TextMessageEventContent(msgtype=MessageType.TEXT, body="secret"))
        await until("alice reads the bridge's secret", lambda: body(alice, said) == "secret")
        answer = await alice.send_text(room, "secret too")
        await until("the bridge reads alice's secret", lambda: answer in got and got[answer].content.body == "secret too")
    finally:
        await service.stop()
        await bot.api.session.close()


async def talk():
    name = str(time.time_ns())
    alice, bob = await person(f"alice{name}"), await person(f"bob{name}")
    await chat(alice, bob, name)
    await secrets(alice, bob)
    await bridge(alice, name)
    assert not complaints, complaints
    for p in (alice, bob):
        p.stop()
        token = p.api.token
        await p.logout()
        p.api.token = token
        await refused(p.whoami(), MUnknownToken)


try:
    asyncio.run(asyncio.wait_for(talk(), 120))
except BaseException:
    traceback.print_exc()
    os._exit(1)  # the threads of open databases would keep the process
print("passed", flush=True)
os._exit(0)
