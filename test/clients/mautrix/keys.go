package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// verify lets the user compare emojis on a new device and on one that has the keys,
// which signs the new one then.
func verify(ctx context.Context, has, fresh *device) {
	get(fresh.mach.FetchKeys(ctx, []id.UserID{fresh.UserID}, true))("the user's devices")
	txn := get(fresh.verification.StartVerification(ctx, fresh.UserID))("start to verify")
	take("request", has.asked)
	must("accept", has.verification.AcceptVerification(ctx, txn))
	take("answer", has.ready)
	take("answer", fresh.ready)
	must("start with emojis", fresh.verification.StartSAS(ctx, txn))
	want("both see the same", take("emojis", has.shown) == take("emojis", fresh.shown))
	for _, d := range []*device{has, fresh} {
		must("confirm", d.verification.ConfirmSAS(ctx, txn))
	}
	for _, d := range []*device{has, fresh} {
		take("end of the verification", d.done)
	}
	_, signed, err := fresh.mach.GetOwnVerificationStatus(ctx)
	must("own status", err)
	want("the new device is signed", signed)
}

// trust signs the keys of another user; the signature is for the signer alone.
func trust(ctx context.Context, alice, bob *device) {
	his := get(alice.mach.GetCrossSigningPublicKeys(ctx, bob.UserID))("keys of bob").MasterKey
	must("sign", alice.mach.SignUser(ctx, bob.UserID, his))
	mine := get(alice.mach.GetOwnCrossSigningPublicKeys(ctx))("own keys").UserSigningKey
	for d, sees := range map[*device]bool{alice: true, bob: false} {
		keys := get(d.QueryKeys(ctx, &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{bob.UserID: {}}}))("keys")
		ok, _ := signatures.VerifySignatureJSON(keys.MasterKeys[bob.UserID], alice.UserID, mine.String(), mine)
		want(fmt.Sprintf("%s sees the signature: %t", d.UserID, sees), ok == sees)
	}
}

// restore backs the keys of a device up, and reads what was said in another one.
func restore(ctx context.Context, alice *device, room id.RoomID, first id.EventID, recovery string) *device {
	key := get(backup.NewMegolmBackupKey())("backup key")
	auth := backup.MegolmAuthData{PublicKey: id.Ed25519(base64.RawStdEncoding.EncodeToString(key.PublicKey().Bytes()))}
	master := alice.mach.CrossSigningKeys.MasterKey
	auth.Signatures = signatures.NewSingleSignature(alice.UserID, id.KeyAlgorithmEd25519, master.PublicKey().String(), get(master.SignJSON(auth))("sign"))
	version := get(alice.CreateKeyBackupVersion(ctx, &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{
		Algorithm: id.KeyBackupAlgorithmMegolmBackupV1, AuthData: auth,
	}))("make a backup").Version
	sessions := map[id.SessionID]mautrix.ReqKeyBackupData{}
	for _, s := range get(alice.mach.CryptoStore.GetGroupSessionsForRoom(ctx, room).AsList())("sessions") {
		sessions[s.ID()] = mautrix.ReqKeyBackupData{SessionData: seal(key, s)}
	}
	put := get(alice.PutKeysInBackup(ctx, version, &mautrix.ReqKeyBackup{
		Rooms: map[id.RoomID]mautrix.ReqRoomKeyBackup{room: {Sessions: sessions}},
	}))("back up")
	want("all sessions are in the backup", put.Count == len(sessions) && put.Count > 1)
	vault := secrets(ctx, alice, recovery)
	must("store the key", alice.mach.SSSS.SetEncryptedAccountData(ctx, event.AccountDataMegolmBackupKey, key.Bytes(), vault))

	c := get(mautrix.NewClient(os.Args[1], "", ""))("client")
	get(c.Login(ctx, &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Password: password, StoreCredentials: true,
		Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: "alice"},
	}))("log in")
	d := start(ctx, c)
	verify(ctx, alice, d)
	must("recover", d.mach.VerifyWithRecoveryKey(ctx, recovery))
	found := get(d.mach.SSSS.GetDecryptedAccountData(ctx, event.AccountDataMegolmBackupKey, secrets(ctx, d, recovery)))("backup key")
	got := get(d.mach.DownloadAndStoreLatestKeyBackup(ctx, get(backup.MegolmBackupKeyFromBytes(found))("key")))("restore")
	want("the newest backup", got == version)
	old := get(d.GetEvent(ctx, room, first))("old message")
	must("parse", old.Content.ParseRaw(old.Type))
	want("the old message is read", get(d.crypto.Decrypt(ctx, old))("decrypt").Content.AsMessage().Body == "for bob alone")

	return d
}

func secrets(ctx context.Context, d *device, recovery string) *ssss.Key {
	name, meta, err := d.mach.SSSS.GetDefaultKeyData(ctx)
	must("default key", err)
	return get(meta.VerifyRecoveryKey(name, recovery))("recovery key")
}

// seal is a session as the backup keeps it.
func seal(key *backup.MegolmBackupKey, s *crypto.InboundGroupSession) json.RawMessage {
	exported := get(s.Internal.Export(s.Internal.FirstKnownIndex()))("export")
	sealed := get(backup.EncryptSessionData(key, backup.MegolmSessionData{
		Algorithm: id.AlgorithmMegolmV1, ForwardingKeyChain: []string{}, SessionKey: string(exported),
		SenderClaimedKeys: backup.SenderClaimedKeys{Ed25519: s.SigningKey}, SenderKey: s.SenderKey,
	}))("seal")
	return get(json.Marshal(sealed))("seal")
}

// callbacks tell the device's channels what verification comes to.
type callbacks struct{ d *device }

func (c callbacks) VerificationRequested(_ context.Context, txn id.VerificationTransactionID, _ id.UserID, _ id.DeviceID) {
	c.d.asked <- txn
}

func (c callbacks) VerificationReady(_ context.Context, txn id.VerificationTransactionID, _ id.DeviceID, _, _ bool, _ *verificationhelper.QRCode) {
	c.d.ready <- txn
}

func (c callbacks) VerificationCancelled(_ context.Context, _ id.VerificationTransactionID, code event.VerificationCancelCode, reason string) {
	fail("verification of %s is cancelled: %s: %s", c.d.UserID, code, reason)
}

func (c callbacks) VerificationDone(context.Context, id.VerificationTransactionID, event.VerificationMethod) {
	c.d.done <- struct{}{}
}

func (c callbacks) ShowSAS(_ context.Context, _ id.VerificationTransactionID, emojis []rune, _ []string, _ []int) {
	c.d.shown <- string(emojis)
}
