package contact

import (
	"html/template"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/mailer"
)

// page is the HTML form of a mail. html/template escapes by where a value stands.
var page = template.Must(template.New("mail").Parse(`<!DOCTYPE html>
<html lang="en"><body style="font-family:sans-serif;line-height:1.5">
{{range .Lines}}<p>{{.}}</p>
{{end}}{{if .Link}}<p><a href="{{.Link}}">{{.Action}}</a></p>
<p style="color:#666">Or open this address: {{.Link}}</p>
{{end}}</body></html>
`))

type text struct {
	Lines  []string
	Link   string
	Action string
}

// mail writes both forms of a mail.
func (s *Service) mail(subject string, t text) mailer.Mail {
	var html strings.Builder
	if err := page.Execute(&html, t); err != nil {
		panic("contact: mail: " + err.Error()) // the template takes any text
	}
	plain := strings.Join(t.Lines, "\n\n") + "\n"
	if t.Link != "" {
		plain += "\n" + t.Action + ":\n" + t.Link + "\n"
	}
	return mailer.Mail{Subject: subject, Text: plain, HTML: html.String()}
}

const (
	ignore = "If it was not you, you need not do anything: without the link nothing happens."
	soon   = "The link works once, within an hour."
)

func (s *Service) registerMail(link string) mailer.Mail {
	return s.mail("Confirm your address for "+s.Server, text{
		Lines: []string{"Somebody wants to sign up at " + s.Server + " with this address.", soon, ignore},
		Link:  link, Action: "Confirm the address",
	})
}

func (s *Service) addMail(link string) mailer.Mail {
	return s.mail("Confirm your address for "+s.Server, text{
		Lines: []string{"Somebody wants to add this address to their account at " + s.Server + ".", soon, ignore},
		Link:  link, Action: "Confirm the address",
	})
}

func (s *Service) passwordMail(owner ids.UserID, link string) mailer.Mail {
	return s.mail("Set a new password at "+s.Server, text{
		Lines: []string{"Somebody wants to set a new password for " + string(owner) + ".", soon, ignore},
		Link:  link, Action: "Allow a new password",
	})
}

func (s *Service) takenMail(owner ids.UserID) mailer.Mail {
	return s.mail("Your address at "+s.Server, text{
		Lines: []string{
			"Somebody wanted to use this address at " + s.Server + ", where it belongs to " + string(owner) + " already.",
			"If it was you, sign in with that account, or ask for a new password.",
		},
	})
}
