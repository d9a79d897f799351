package account

import (
	"reflect"

	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Commands are values of all commands of the package, for nodes to send them to each
// other.
func Commands() []partition.Command {
	return []partition.Command{
		&EditBackup{},
		&EditBackupKeys{},
		&CarryOver{},
		&ClaimContact{},
		&ReleaseContact{},
		&AddContact{},
		&RemoveContact{},
		&SetCrossSigning{},
		&SignKeys{},
		&SetData{},
		&PutFilter{},
		&Forget{},
		&SetDehydrated{},
		&EndFarewell{},
		&ForgetRoom{},
		&UploadKeys{},
		&Modify{},
		&Notify{},
		&Sent{},
		&ListNotifications{},
		&ClaimKeys{},
		&SetPresence{},
		&SetProfile{},
		&SetPusher{},
		&EndPusher{},
		&ActivatePusher{},
		&Refresh{},
		&ConfirmToken{},
		&UseRegToken{},
		&Register{},
		&Login{},
		&EndDevices{},
		&UpdateDevice{},
		&IssueShortToken{},
		&Confirm{},
		&SpendProof{},
		&SetStatus{},
		&SubscribeThread{},
		&SendToDevice{},
		&AckInbox{},
		&BeginValidation{},
		&ConfirmValidation{},
		&UseValidation{},
	}
}

// Failures are the errors of commands that callers tell apart.
func Failures() []error { return []error{ErrPasswordChanged, ErrProof} }

// Unions are what may stand in the fields of commands that are interfaces.
func Unions() map[reflect.Type][]any {
	return map[reflect.Type][]any{reflect.TypeFor[Edit](): {EditTag{}, &EditPushRules{}}}
}
