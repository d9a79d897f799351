package chaos

import (
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/test/history"
)

// fine is a small history in which every promise held.
func fine() *Devices {
	d := &Devices{Inboxes: map[string][]string{}, Left: map[string]int{"a": 2}}
	for n := range 4 {
		m := &Message{From: "b", To: "a", N: n + 1, Outcome: history.OK}
		d.Messages = append(d.Messages, m)
		d.Inboxes["a"] = append(d.Inboxes["a"], m.name())
	}
	d.Messages = append(d.Messages, &Message{From: "b", To: "a", N: 5, Outcome: history.Unknown}, &Message{From: "c", To: "a", N: 1, Outcome: history.Fail})
	for _, id := range []string{"k1", "k2", "k3", "k4", "k5"} {
		d.Keys = append(d.Keys, &Key{Of: "a", ID: id, Outcome: history.OK})
	}
	for _, id := range []string{"k1", "k2"} {
		d.Claims = append(d.Claims, &Claim{Of: "a", Key: id, Outcome: history.OK})
	}
	d.Claims = append(d.Claims, &Claim{Of: "a", Outcome: history.Unknown})
	return d
}

func TestCheckDevices(t *testing.T) {
	if got := CheckDevices(fine()); len(got) > 0 {
		t.Fatalf("a history in which all was well: %q", got)
	}
	for name, tt := range map[string]struct {
		doctor func(*Devices)
		want   string
	}{
		"lost":        {func(d *Devices) { d.Inboxes["a"] = d.Inboxes["a"][1:] }, "D1"},
		"twice":       {func(d *Devices) { d.Inboxes["a"] = append(d.Inboxes["a"], "b>a:4") }, "D1"},
		"made up":     {func(d *Devices) { d.Inboxes["a"] = append(d.Inboxes["a"], "b>a:9") }, "D2"},
		"misdirected": {func(d *Devices) { d.Inboxes["x"] = []string{"b>a:5"} }, "D2"},
		"refused":     {func(d *Devices) { d.Inboxes["a"] = append(d.Inboxes["a"], "c>a:1") }, "D2"},
		"swapped":     {func(d *Devices) { i := d.Inboxes["a"]; i[1], i[2] = i[2], i[1] }, "D3"},
		"same key":    {func(d *Devices) { d.Claims[1].Key = "k1" }, "K1"},
		"foreign key": {func(d *Devices) { d.Claims[1].Key = "k9" }, "K2"},
		"lost keys":   {func(d *Devices) { d.Left["a"] = 1 }, "K3"},
		"keys again":  {func(d *Devices) { d.Left["a"] = 4 }, "K3"},
	} {
		t.Run(name, func(t *testing.T) {
			d := fine()
			tt.doctor(d)
			got := CheckDevices(d)
			if len(got) == 0 || !strings.HasPrefix(got[0], tt.want) {
				t.Errorf("%q, want %s", got, tt.want)
			}
		})
	}
	d := fine()
	d.Left["a"] = 3 // the claim without an answer took none
	d.Inboxes["a"] = append(d.Inboxes["a"], "b>a:5")
	if got := CheckDevices(d); len(got) > 0 {
		t.Errorf("what was not known happened, or not: %q", got)
	}
}
