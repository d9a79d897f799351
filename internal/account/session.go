package account

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// TypePushRules is the account data that holds the changes of the user to the push
// rules. Clients see the whole rules in its place.
const TypePushRules = "m.push_rules"

// MaxDevices bounds the devices of one user; the one seen least recently makes
// room for a new one. Bots that log in anew at every start would otherwise add
// one each time.
const MaxDevices = 500

// Session is the device and the tokens of a login.
type Session struct {
	Device      ids.DeviceID
	DisplayName string
	// Access and Refresh are the hashes of the tokens, "" for none.
	Access, Refresh string
	// AccessExpiresTS and RefreshExpiresTS are in ms since 1970, 0 for never.
	AccessExpiresTS, RefreshExpiresTS int64
	IP, UserAgent                     string
}

// Register makes an account and, unless Session is nil, logs it in.
// M_USER_IN_USE if it exists.
type Register struct {
	command
	Account Account
	// DisplayName is the first display name, "" for none.
	DisplayName string
	Session     *Session
	// Contact, if not nil, is the user's first address, which ClaimContact has
	// taken for them.
	Contact *Contact
	// Upgrade makes a full account of a guest's, who has proved to be the guest.
	// spec: client-server §Guest Access.
	Upgrade bool
}

// NewRegister returns the command for a user ID that is valid.
func NewRegister(user ids.UserID, a Account, displayName string, s *Session) *Register {
	return &Register{command: command{user}, Account: a, DisplayName: displayName, Session: s}
}

var _ partition.Command = (*Register)(nil)

// Name implements partition.Command.
func (c *Register) Name() string { return "register" }

// Prepare implements partition.Command.
func (c *Register) Prepare(ctx context.Context, p *partition.Prep) error {
	keys := []storage.Key{c.at(p).account()}
	if c.Session != nil {
		keys = append(keys, c.at(p).device(c.Session.Device))
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *Register) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	old := get[Account](tx, p.account())
	if upgrade := c.Upgrade && old.isGuest(); upgrade != (old != nil) || upgrade != c.Upgrade {
		return nil, merr.New(http.StatusBadRequest, merr.UserInUse, "The user name is taken")
	}
	a := c.Account
	a.CreatedTS = tx.Now
	if old != nil {
		a.CreatedTS, a.ProfileBytes, a.Logins, a.Contacts = old.CreatedTS, old.ProfileBytes, old.Logins+1, old.Contacts+1
	}
	if c.DisplayName != "" && old == nil {
		name := encode(c.DisplayName)
		a.ProfileBytes = fieldBytes(FieldDisplayName, name)
		tx.Put(p.profile(FieldDisplayName), name, nil)
	}
	put(tx, p.account(), &a)
	tx.Put(storage.Key{Partition: p.Partition, Table: tables.Users, Sort: string(p.User)}, []byte{}, nil)
	if c.Contact != nil {
		contact := *c.Contact
		contact.AddedTS = tx.Now
		put(tx, p.contact(contact.Medium, contact.Address), &contact)
	}
	if c.Session != nil {
		c.Session.start(tx, p)
	}
	if a.Guest {
		return nil, nil // nobody looks for guests
	}
	return nil, tellNames(tx, c.User, nil, room.NameTerms(c.User, c.DisplayName))
}

// isGuest reports whether the account is a guest's who may use it.
func (a *Account) isGuest() bool { return a != nil && a.Guest && !a.Deactivated && !a.Locked }

// start writes the device and its tokens; the tokens that the device had before
// end. spec: client-server §Relationship between access tokens and devices.
func (s *Session) start(tx *partition.Tx, p Place) {
	old := get[Device](tx, p.device(s.Device))
	d := Device{DisplayName: s.DisplayName, LastSeenIP: s.IP, LastSeenTS: tx.Now, UserAgent: s.UserAgent}
	if old != nil {
		if d.DisplayName == "" {
			d.DisplayName = old.DisplayName
		}
		old.deleteTokens(tx, p)
		if len(old.Tokens) > 0 {
			emit(tx, p, Change{Kind: ChangeSessions, Devices: []ids.DeviceID{s.Device}})
		}
	}
	d.Tokens = s.issue(tx, p, nil)
	put(tx, p.device(s.Device), &d)
}

// deleteTokens deletes the tokens of a device, the spent one too: without the
// device that names it, it would pass for one that was never used.
func (d *Device) deleteTokens(tx *partition.Tx, p Place) {
	for _, hash := range d.Tokens {
		tx.Delete(p.token(hash))
	}
	if d.Spent != "" {
		tx.Delete(p.token(d.Spent))
	}
}

// issue writes the session's tokens. They end those in replaces when used.
func (s *Session) issue(tx *partition.Tx, p Place, replaces []string) []string {
	if s.Access == "" {
		return nil // a device of an application service, which has a token of its own
	}
	issued := []string{s.Access}
	access := &Token{Device: s.Device, ExpiresTS: s.AccessExpiresTS, Replaces: replaces, Pair: s.Refresh}
	if s.Refresh != "" {
		issued = append(issued, s.Refresh)
		put(tx, p.token(s.Refresh), &Token{
			Device: s.Device, Refresh: true, ExpiresTS: s.RefreshExpiresTS, Replaces: replaces, Pair: s.Access,
		})
	}
	put(tx, p.token(s.Access), access)
	return issued
}

// ErrPasswordChanged: the password was changed between its check and the login.
var ErrPasswordChanged = errors.New("account: password changed meanwhile")

// Login starts a session of an account whose owner has proved who they are.
type Login struct {
	command
	Session Session
	// PasswordHash, if not "", is replaced: its parameters were out of date.
	PasswordHash string
	// Proof, if not "", is the hash that the password was checked against. The
	// login fails with ErrPasswordChanged if it is no longer the account's.
	Proof string
	// Token, if not "", is the hash of the login token that is used up.
	Token string

	drop []ids.DeviceID // devices over MaxDevices
	tell announcement   // of their end
}

// NewLogin returns the command.
func NewLogin(user ids.UserID, s Session, newHash string) *Login {
	return &Login{command: command{user}, Session: s, PasswordHash: newHash}
}

var _ partition.Command = (*Login)(nil)

// Name implements partition.Command.
func (c *Login) Name() string { return "login" }

// Prepare implements partition.Command.
func (c *Login) Prepare(ctx context.Context, p *partition.Prep) error {
	devices, err := NewReader(p.Store(), p.Count()).Devices(ctx, c.User)
	if err != nil {
		return err
	}
	c.drop = nil
	devices = slices.DeleteFunc(devices, func(d DeviceInfo) bool { return d.ID == c.Session.Device })
	if len(devices) >= MaxDevices {
		slices.SortFunc(devices, func(a, b DeviceInfo) int { return cmp.Compare(a.LastSeenTS, b.LastSeenTS) })
		for _, d := range devices[:len(devices)-MaxDevices+1] {
			c.drop = append(c.drop, d.ID)
		}
	}
	keys := []storage.Key{c.at(p).account(), c.at(p).device(c.Session.Device)}
	if c.Token != "" {
		keys = append(keys, c.at(p).shortToken(c.Token))
	}
	if err := p.Pin(ctx, append(keys, c.at(p).ending(c.drop)...)...); err != nil || len(c.drop) == 0 {
		return err
	}
	return c.tell.prepare(ctx, p, c.at(p))
}

// Apply implements partition.Command.
func (c *Login) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	a := get[Account](tx, p.account())
	if err := a.mayLogIn(); err != nil {
		return nil, err
	}
	if c.Proof != "" && c.Proof != a.PasswordHash {
		return nil, merr.ForbiddenErr("Wrong user name or password").Because(ErrPasswordChanged)
	}
	if c.Token != "" {
		if err := spend(tx, p, c.Token); err != nil {
			return nil, err
		}
	}
	changed := *a
	changed.Logins++
	if c.PasswordHash != "" {
		changed.PasswordHash = c.PasswordHash
	}
	put(tx, p.account(), &changed)
	if _, err := endDevices(tx, p, c.drop, &c.tell); err != nil {
		return nil, err
	}
	c.Session.start(tx, p)
	return nil, nil
}

func (a *Account) mayLogIn() error {
	switch {
	case a == nil:
		return merr.ForbiddenErr("Wrong user name or password")
	case a.Deactivated:
		return merr.New(http.StatusForbidden, merr.UserDeactivated, "This account has been deactivated")
	case a.Locked:
		return merr.New(http.StatusUnauthorized, merr.UserLocked, "This account has been locked").With("soft_logout", true)
	}
	return nil
}

// notificationSettings begin the types of account data that say whether a device shows
// notifications; the device's ID follows. It goes with the device. spec: MSC3890.
var notificationSettings = []string{"m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."}

// endSettings deletes what is kept of a device in the account data.
func endSettings(tx *partition.Tx, p Place, d ids.DeviceID) error {
	for _, prefix := range notificationSettings {
		typ := prefix + string(d)
		old := get[Data](tx, p.data("", typ))
		if old == nil || old.Deleted {
			continue
		}
		if err := setData(tx, p, Data{Type: typ, Content: jsontext.Value("{}"), Deleted: true}); err != nil {
			return err
		}
	}
	return nil
}

// ending are the rows that endDevices looks at.
func (p Place) ending(devices []ids.DeviceID) []storage.Key {
	keys := make([]storage.Key, 0, 5*len(devices)+1)
	for _, d := range devices {
		keys = append(keys, p.device(d), p.deviceKeys(d), p.keyState(d))
		for _, prefix := range notificationSettings {
			keys = append(keys, p.data("", prefix+string(d)))
		}
	}
	if len(devices) > 0 {
		keys = append(keys, p.push())
	}
	return keys
}

// endDevices removes devices with everything that is theirs. The rows of ending
// are pinned, and tell is prepared unless there are no devices.
func endDevices(tx *partition.Tx, p Place, devices []ids.DeviceID, tell *announcement) ([]ids.DeviceID, error) {
	var ended []ids.DeviceID
	seen := false
	for _, id := range devices {
		d := get[Device](tx, p.device(id))
		if d == nil {
			continue
		}
		d.deleteTokens(tx, p)
		tx.Delete(p.device(id))
		seen = endKeys(tx, p, id) || seen
		if err := endSettings(tx, p, id); err != nil {
			return nil, err
		}
		ended = append(ended, id)
	}
	if len(ended) > 0 {
		endDevicePushers(tx, p, ended)
		emit(tx, p, Change{Kind: ChangeSessions, Devices: ended})
	}
	if seen {
		return ended, tell.apply(tx, p)
	}
	return ended, nil
}

// EndDevices logs devices out: all but Keep if All is set, else those listed.
// The result is the []ids.DeviceID that ended.
type EndDevices struct {
	command
	Devices []ids.DeviceID
	All     bool
	Keep    ids.DeviceID
	// PasswordHash, if not "", is the new password's: changing a password may
	// log others out, in one step.
	PasswordHash string
	// Deactivate ends the account too, with all that is in the user's partition.
	// Erase removes the profile as well, and hides what the user has sent from
	// those who come later. The rest is done by whoever follows the log.
	Deactivate, Erase bool

	// contacts are the addresses to end, listed when the account had seen that many.
	contacts []Contact
	added    uint64
	// found are the devices to end, listed when the account had seen that many
	// logins.
	found  []ids.DeviceID
	logins uint64
	tell   announcement
}

// NewEndDevices returns the command to log out the devices listed.
func NewEndDevices(user ids.UserID, devices ...ids.DeviceID) *EndDevices {
	return &EndDevices{command: command{user}, Devices: devices}
}

// NewEndAll returns the command to log out all devices but keep, which may be "".
func NewEndAll(user ids.UserID, keep ids.DeviceID) *EndDevices {
	return &EndDevices{command: command{user}, All: true, Keep: keep}
}

var _ partition.Command = (*EndDevices)(nil)

// Name implements partition.Command.
func (c *EndDevices) Name() string { return "end_devices" }

// Prepare implements partition.Command.
func (c *EndDevices) Prepare(ctx context.Context, p *partition.Prep) error {
	c.found = c.Devices
	if c.All {
		r := NewReader(p.Store(), p.Count())
		a, err := r.Account(ctx, c.User) // before the list: a login between the two is noticed
		if err != nil {
			return err
		}
		list, err := r.Devices(ctx, c.User)
		if err != nil {
			return err
		}
		c.found, c.logins = nil, a.logins()
		for _, d := range list {
			if d.ID != c.Keep {
				c.found = append(c.found, d.ID)
			}
		}
	}
	keys := append(c.at(p).ending(c.found), c.at(p).account(), c.at(p).profile(FieldDisplayName))
	if c.Deactivate {
		keys = append(keys, c.at(p).push())
		r := NewReader(p.Store(), p.Count())
		a, err := r.Account(ctx, c.User) // before the list, as above
		if err != nil {
			return err
		}
		c.added = a.contacts()
		if c.contacts, err = r.Contacts(ctx, c.User); err != nil {
			return err
		}
	}
	if err := p.Pin(ctx, keys...); err != nil || len(c.found) == 0 {
		return err
	}
	return c.tell.prepare(ctx, p, c.at(p))
}

// Apply implements partition.Command.
func (c *EndDevices) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	a := get[Account](tx, p.account())
	if c.All && a.logins() != c.logins || c.Deactivate && a.contacts() != c.added {
		return nil, partition.ErrRetry
	}
	if c.All {
		tx.DeletePrefix(p.shortToken("")) // a login with one would outlast the others
	}
	if c.PasswordHash != "" || c.Deactivate {
		if a == nil || a.Deactivated {
			return nil, merr.NotFoundErr("No such user")
		}
		changed := *a
		if c.PasswordHash != "" {
			changed.PasswordHash = c.PasswordHash
		}
		if c.Deactivate {
			if err := c.endAccount(tx, p, &changed); err != nil {
				return nil, err
			}
		}
		put(tx, p.account(), &changed)
	}
	return endDevices(tx, p, c.found, &c.tell)
}

// endIdentity removes what a user leaves behind beside their devices.
func endIdentity(tx *partition.Tx, p Place) {
	tx.Delete(p.crossSigning())
	tx.DeletePrefix(p.key(tables.KeySignature, ""))
	tx.Delete(p.dehydrated())
	endBackups(tx, p)
}

func (a *Account) logins() uint64 {
	if a == nil {
		return 0
	}
	return a.Logins
}

// UpdateDevice renames a device. M_NOT_FOUND if there is none.
type UpdateDevice struct {
	command
	Device      ids.DeviceID
	DisplayName *string
	// Seen, if not nil, is where and when the device was last seen.
	Seen *Seen

	tell announcement // of the name, which goes with the keys
}

// Seen is a trace of a device.
type Seen struct {
	IP, UserAgent string
	// TS is in ms since 1970.
	TS int64
}

// NewUpdateDevice returns the command.
func NewUpdateDevice(user ids.UserID, d ids.DeviceID, name *string, seen *Seen) *UpdateDevice {
	return &UpdateDevice{command: command{user}, Device: d, DisplayName: name, Seen: seen}
}

var _ partition.Command = (*UpdateDevice)(nil)

// Name implements partition.Command.
func (c *UpdateDevice) Name() string { return "update_device" }

// Prepare implements partition.Command.
func (c *UpdateDevice) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	if err := p.Pin(ctx, pl.device(c.Device), pl.deviceKeys(c.Device)); err != nil || c.DisplayName == nil {
		return err
	}
	return c.tell.prepare(ctx, p, pl)
}

// Apply implements partition.Command.
func (c *UpdateDevice) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	k := p.device(c.Device)
	d := get[Device](tx, k)
	if d == nil {
		return nil, merr.NotFoundErr("No such device")
	}
	changed := *d
	if c.DisplayName != nil && *c.DisplayName != d.DisplayName {
		changed.DisplayName = *c.DisplayName
		if tx.Get(p.deviceKeys(c.Device)).Value != nil {
			if err := c.tell.apply(tx, p); err != nil {
				return nil, err
			}
		}
	}
	if c.Seen != nil {
		changed.LastSeenIP, changed.UserAgent, changed.LastSeenTS = c.Seen.IP, c.Seen.UserAgent, c.Seen.TS
	}
	put(tx, k, &changed)
	return nil, nil
}
