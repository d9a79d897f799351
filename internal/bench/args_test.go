package bench

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestArgs(t *testing.T) {
	tests := []struct {
		args string
		run  string // names of the scenarios
		fail string // a part of the error
	}{
		{"", "send-http-64 send-http-256 send-ws-64 send-ws-256 send-ws-64-to-10 deliver fanout longpoll account join idle", ""},
		{"all --duration=1s", "send-http-64 send-http-256 send-ws-64 send-ws-256 send-ws-64-to-10 deliver fanout longpoll account join idle", ""},
		{"send", "send-http-64", ""},
		{"send --transport=ws --senders=3 --receivers=2", "send-ws-3-to-2", ""},
		{"--url=http://127.0.0.1:8008 --pid=1 fanout", "fanout", ""},
		{"deliver --rate=100", "deliver", ""},
		{"idle --sessions=20 --members=0", "idle", ""},
		{"longpoll", "longpoll", ""},
		{"account --rooms=5", "account", ""},
		{"account --members=1", "", "--members"},
		{"join --joins=3", "join", ""},
		{"cluster", "cluster", ""},
		{"cluster --nodes=3,1 --rate=5", "cluster", ""},
		{"cluster --nodes=0", "", "--nodes"},
		{"cluster --nodes=1,10", "", "--nodes"},
		{"cluster --rate=0", "", "--rate"},
		{"cluster --senders=641", "", "--senders"},
		{"cluster --url=http://127.0.0.1:1", "", "--url"},
		{"growth", "growth-rooms growth-members growth-history growth-user-rooms", ""},
		{"growth --of=members,rooms --rooms=5", "growth-rooms growth-members", ""},
		{"growth --of=weight", "", "--of"},
		{"growth --members=5,0", "", "--members"},
		{"growth --rounds=0", "", "--rounds"},
		{"growth --url=http://127.0.0.1:1", "", "--url"},
		{"large", "large", ""},
		{"large --members=70", "", "--members"},
		{"begin --rooms=0", "begin", ""},
		{"begin --users=0", "", "--users"},
		{"join --joins=0", "", "--joins"},
		{"sned", "", "unexpected argument"},
		{"send --transport=udp", "", "--transport"},
		{"send --senders=641", "", "--senders"},
		{"send --rooms=0", "", "--rooms"},
		{"send --size=100000", "", "--size"},
		{"send --receivers=11", "", "--receivers"},
		{"fanout --window=0", "", "--window"},
		{"fanout --members=5", "", "--senders"},
		{"fanout --rate=-1", "", "--rate"},
		{"deliver --rate=-1", "", "--rate"},
		{"longpoll --rate=0", "", "--rate"},
		{"idle --sessions=15 --members=10", "", "--sessions"},
		{"idle --sessions=0", "", "--sessions"},
		{"send --duration=0s", "", "--duration"},
		{"send --pid=1", "", "--pid"},
		{"send --url=http://127.0.0.1:1 --serve=x", "", "--serve"},
		{"send --url=http://127.0.0.1:1 --profile=x", "", "--metrics-url"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			_, run, err := parseArgs(strings.Fields(tt.args), new(bytes.Buffer), new(bytes.Buffer))
			if tt.fail != "" {
				if err == nil || !errors.Is(err, ErrArgs) || !strings.Contains(err.Error(), tt.fail) {
					t.Errorf("error %v, want one about %s", err, tt.fail)
				}
				return
			}
			var names []string
			for _, s := range run {
				names = append(names, s.name)
			}
			if err != nil || !slices.Equal(names, strings.Fields(tt.run)) {
				t.Errorf("scenarios %v, %v", names, err)
			}
		})
	}
}

func TestArgsReachTheScenario(t *testing.T) {
	a, _, err := parseArgs(strings.Fields("send --duration=7s --warmup=0s --serve-arg=--server.partitions=2 --serve-arg=a,b --rooms=3 --senders=4 --size=9"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Duration != 7*time.Second || a.Warmup != 0 || a.Send.Rooms != 3 || a.Send.Size != 9 || a.Send.Senders != 4 {
		t.Errorf("%+v", a)
	}
	if !slices.Equal(a.ServeArgs, []string{"--server.partitions=2", "a,b"}) {
		t.Errorf("%q", a.ServeArgs)
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if err := Main(t.Context(), []string{"--help"}, &out, new(bytes.Buffer)); err != nil || !strings.Contains(out.String(), "fanout") {
		t.Errorf("%v: %s", err, out.String())
	}
}
