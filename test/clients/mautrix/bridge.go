package main

import (
	"context"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// bridge is an application service: a bot and a ghost, in plain and in encrypted rooms.
func bridge(ctx context.Context, alice *device) {
	registration := get(appservice.LoadRegistration(os.Args[2]))("registration")
	at := get(url.Parse(registration.URL))("address")
	port := get(strconv.ParseUint(at.Port(), 10, 16))("port")
	as := get(appservice.CreateFull(appservice.CreateOpts{
		Registration: registration, HomeserverDomain: os.Args[3], HomeserverURL: os.Args[1],
		HostConfig: appservice.HostConfig{Hostname: at.Hostname(), Port: uint16(port)},
	}))("application service")
	var box mailbox
	processor := appservice.NewEventProcessor(as)
	for _, t := range []event.Type{event.EventMessage, event.StateMember, event.EphemeralEventTyping} {
		processor.On(t, box.put)
	}
	go as.Start()
	processor.Start(ctx)
	bot := as.BotIntent()
	must("the bot", bot.EnsureRegistered(ctx))
	eventually("the server does not reach the service", func() bool {
		_, err := bot.AppservicePing(ctx, registration.ID, "ping")
		return err == nil
	})

	room := get(alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{bot.UserID}}))("create").RoomID
	box.find("the bot is not invited", func(e *event.Event) bool { return e.RoomID == room && e.GetStateKey() == bot.UserID.String() })
	must("the bot joins", bot.EnsureJoined(ctx, room))
	get(alice.SendStateEvent(ctx, room, event.StatePowerLevels, "", &event.PowerLevelsEventContent{
		Users: map[id.UserID]int{bot.UserID: 50},
	}))("power")
	ghost := as.Intent(id.NewUserID("ghost_eve", os.Args[3]))
	must("the ghost joins", ghost.EnsureJoined(ctx, room))
	must("the ghost has a name", ghost.SetDisplayName(ctx, "Eve"))
	long := time.UnixMilli(1234567890000)
	get(ghost.SendMassagedMessageEvent(ctx, room, event.EventMessage, &event.MessageEventContent{MsgType: event.MsgText, Body: "long ago"}, long.UnixMilli()))("say")
	heard := alice.hears("long ago", false)
	want("the ghost said it, then", heard.Sender == ghost.UserID && heard.Timestamp == long.UnixMilli())
	get(alice.UserTyping(ctx, room, true, patience))("type")
	box.find("typing is not told", func(e *event.Event) bool {
		return e.Type == event.EphemeralEventTyping && slices.Contains(e.Content.AsTyping().UserIDs, alice.UserID)
	})
	alice.say(ctx, room, "hello, bridge")
	box.hears("hello, bridge", false)

	// Who is on the other side exists once somebody invites them.
	frank := as.Intent(id.NewUserID("ghost_frank", os.Args[3]))
	direct := get(alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "trusted_private_chat", IsDirect: true, Invite: []id.UserID{frank.UserID},
	}))("invite one who is not there yet").RoomID
	box.find("frank is not invited", func(e *event.Event) bool { return e.RoomID == direct && e.GetStateKey() == frank.UserID.String() })
	must("frank joins", frank.EnsureJoined(ctx, direct))

	device := as.NewMautrixClient(bot.UserID)
	must("a device of the bot", device.CreateDeviceMSC4190(ctx, "", "bridge"))
	helper := get(cryptohelper.NewCryptoHelper(device, pickle, crypto.NewMemoryStore(nil)))("crypto helper")
	helper.ASEventProcessor = processor
	must("keys of the bot", helper.Init(ctx))
	device.Crypto = helper
	private := get(device.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "private_chat", Invite: []id.UserID{alice.UserID}, InitialState: []*event.Event{encryption()},
	}))("create").RoomID
	alice.join(ctx, private)
	box.find("alice did not come", func(e *event.Event) bool {
		return e.RoomID == private && e.GetStateKey() == alice.UserID.String() && e.Content.AsMember().Membership == event.MembershipJoin
	})
	get(device.SendText(ctx, private, "a secret of the bridge"))("say")
	alice.hears("a secret of the bridge", true)
	alice.say(ctx, private, "a secret for the bridge")
	box.hears("a secret for the bridge", true)
}
