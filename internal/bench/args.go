package bench

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// ErrArgs is wrapped by errors about the arguments.
var ErrArgs = errors.New("arguments of bench")

// commonArgs are for every scenario.
type commonArgs struct {
	Duration time.Duration `default:"10s" help:"How long to measure, in each phase."`
	Warmup   time.Duration `default:"3s" help:"How long to load before measuring."`
	JSON     string        `name:"json" placeholder:"FILE" help:"Write everything that was found to a file."`
	Profile  string        `placeholder:"DIR" help:"Write profiles of the server to a directory. It costs some of the speed. A server at --url needs --server.pprof."`
}

// targetArgs say which server is measured.
type targetArgs struct {
	URL         string   `name:"url" placeholder:"URL" help:"Measure a server that runs already. It needs --test-mode. Without it one is started for each scenario and removed afterwards."`
	MetricsURL  string   `placeholder:"URL" help:"Where the server at --url has its metrics, such as http://127.0.0.1:9008."`
	PIDs        []int    `name:"pid" placeholder:"PID" help:"Processes of the server at --url, such as those of its workers and its database: the CPU time of all with their children counts, and the memory of the first. Without them both come from its metrics."`
	AllowRemote bool     `help:"Allow --url to name another machine. Never load a server that is not yours."`
	Serve       string   `placeholder:"PROGRAM" help:"The program whose serve command is started; this one if not given."`
	ServeArgs   []string `name:"serve-arg" sep:"none" placeholder:"ARG" help:"A further argument for serve. Repeatable."`
	Data        string   `placeholder:"DIR" help:"Where servers that are started keep their data while they run: a disk that is worth measuring."`
}

// roomArgs are for scenarios with rooms.
type roomArgs struct {
	Rooms   int `default:"64" help:"Number of rooms."`
	Members int `default:"10" help:"Members of each room. No user is in two."`
	Senders int `default:"64" help:"How many send at the same time; they are spread over the rooms."`
	Size    int `default:"100" help:"Size of a message's content in bytes."`
}

type args struct {
	commonArgs
	targetArgs

	All      struct{}     `cmd:"" default:"1" help:"Every scenario with the parameters of the goals."`
	Send     sendArgs     `cmd:"" help:"Durable sends a second, with their CPU time and latency."`
	Deliver  deliverArgs  `cmd:"" help:"Latency from send to receive over WebSocket, at a fixed rate."`
	Fanout   fanoutArgs   `cmd:"" help:"One big room: CPU time for each delivery over WebSocket."`
	Idle     idleArgs     `cmd:"" help:"Idle sessions, over WebSocket or long polls: memory for each."`
	Longpoll longpollArgs `cmd:"" help:"Delivery over long polls of /sync."`
	Account  accountArgs  `cmd:"" help:"Syncs of users who are in many rooms with many others."`
	Join     joinArgs     `cmd:"" help:"What a join of a large room costs, beside one of a small room."`
	Compare  compareArgs  `cmd:"" help:"Print two reports of --json side by side, with ratios."`
	Growth   growthArgs   `cmd:"" help:"CPU time of a message while rooms, members, history or a user's rooms grow. Up to an hour, and some ten GB of disk; --data says where."`
	Large    largeArgs    `cmd:"" help:"One very large room: what others feel while it is joined, written to and read."`
	Begin    beginArgs    `cmd:"" help:"Time and memory of a server's start with many users and rooms."`
	Cluster  clusterArgs  `cmd:"" help:"What it costs that a server runs on several nodes: one PostgreSQL, all on this machine."`
}

type sendArgs struct {
	roomArgs
	Receivers int    `default:"0" help:"How many members of each room receive over WebSocket meanwhile."`
	Transport string `default:"http" enum:"http,ws" help:"http: requests, one connection for each sender. ws: calls over WebSocket."`
}

type deliverArgs struct {
	roomArgs
	Rate float64 `placeholder:"N" help:"Messages a second. Without it, half of what the server was found to take."`
}

type fanoutArgs struct {
	Members int     `default:"500" help:"Members of the room; all receive."`
	Senders int     `default:"32" help:"How many of them send."`
	Size    int     `default:"100" help:"Size of a message's content in bytes."`
	Window  int     `default:"32" help:"Messages that may be under way when it is driven to saturation."`
	Rate    float64 `placeholder:"N" help:"Messages a second in the second phase. Without it, half of what the server was found to take."`
}

type idleArgs struct {
	Sessions  int           `default:"15000" help:"Number of sessions, of a user each."`
	Members   int           `default:"10" help:"Members of the rooms that the users are in; 0 for no rooms."`
	Dialers   int           `default:"64" help:"How many connect at the same time."`
	Transport string        `default:"ws" enum:"ws,poll" help:"ws: WebSocket. poll: long polls of /sync that wait for 30 seconds, one after another."`
	Settle    time.Duration `default:"150s" help:"How long to wait before memory is read; a fifth of it before the sessions are opened. Go collects an idle process's garbage every two minutes."`
}

type longpollArgs struct {
	roomArgs
	Rate      float64 `default:"200" help:"Messages a second."`
	Transport string  `default:"ws" enum:"http,ws" help:"How they are sent; http is what servers of every make have."`
}

type compareArgs struct {
	One   string `arg:"" placeholder:"FILE" help:"What --json wrote."`
	Other string `arg:"" placeholder:"FILE" help:"What it wrote of the other server."`
}

type accountArgs struct {
	Rooms   int `default:"300" help:"Number of rooms."`
	Members int `default:"300" help:"Number of users; each is in each room."`
}

type joinArgs struct {
	Members int `default:"10000" help:"Members of the large room."`
	Joins   int `default:"200" help:"How many join it, and how many join small rooms."`
}

type growthArgs struct {
	Of         []string `enum:"rooms,members,history,user-rooms" placeholder:"WHAT,…" help:"What grows: rooms, members, history, user-rooms; all if not given."`
	Rooms      []int    `default:"100,1000,10000,100000" placeholder:"N,…" help:"Numbers of rooms, of 10 members each."`
	Members    []int    `default:"10,100,1000,10000" placeholder:"N,…" help:"Numbers of members of a room, who are all connected."`
	History    []int    `default:"1000,10000,100000,1000000,10000000" placeholder:"N,…" help:"Numbers of messages that 16 rooms have together."`
	UserRooms  []int    `default:"10,50,200,1000,2000" placeholder:"N,…" help:"Numbers of rooms that 20 users are in."`
	Rate       float64  `default:"500" help:"Messages a second, where they are sent at a rate."`
	Sockets    int      `default:"10000" help:"How many members are connected: with smaller rooms there are more of them."`
	Deliveries float64  `default:"10000" help:"Deliveries a second."`
	Rounds     int      `default:"3" help:"How often each point is measured, each time for --duration. The least counts: what else the machine does only adds."`
	SVG        string   `name:"svg" placeholder:"DIR" help:"Draw each as growth-NAME.svg in a directory."`
}

type largeArgs struct {
	Members int     `default:"100000" help:"Members of the large room."`
	Rate    float64 `default:"100" help:"Messages a second in 64 other rooms of 10 members, whose latencies are measured."`
	Times   int     `default:"20" help:"How often each thing is done with the large room, each time by another member."`
}

type beginArgs struct {
	Users int `default:"1000000" help:"Number of users."`
	Rooms int `default:"1000000" help:"Number of rooms, of one member each."`
}

type clusterArgs struct {
	roomArgs
	Nodes  []int   `default:"1,2,3" placeholder:"N,…" help:"Numbers of nodes to measure, one after another."`
	Rate   float64 `default:"500" help:"Messages a second in the phase with receivers."`
	Rounds int     `default:"3" help:"How often each number of nodes is measured. The least counts: what else the machine does only adds."`
	Store  string  `placeholder:"URL" help:"A PostgreSQL server of this machine, in which databases are made and removed, such as postgres://user@127.0.0.1/postgres. Without it one is started; that needs its programs."`
}

// parseArgs returns the arguments and the scenarios they ask for, none if it was
// only help.
func parseArgs(words []string, stdout, stderr io.Writer) (*args, []scenario, error) {
	a := new(args)
	ended := false
	parser, err := kong.New(
		a, kong.Name("hubbub bench"), kong.Writers(stdout, stderr), kong.Exit(func(int) { ended = true }),
		kong.Description("Measure a server under load. It checks that each acknowledged message reaches each member once and in one order; if not, it fails."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("table of arguments: %w", err)
	}
	parsed, err := parser.Parse(words)
	switch {
	case ended:
		return a, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("%w: %w", ErrArgs, err)
	}
	run, err := a.scenarios(parsed.Command())
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrArgs, err)
	}
	return a, run, nil
}

func (a *args) check() error {
	switch {
	case a.Duration <= 0 || a.Warmup < 0:
		return errors.New("--duration must be positive and --warmup not negative")
	case a.URL == "" && (len(a.PIDs) > 0 || a.MetricsURL != "" || a.AllowRemote):
		return errors.New("--pid, --metrics-url and --allow-remote belong to --url")
	case a.URL != "" && (a.Serve != "" || len(a.ServeArgs) > 0):
		return errors.New("--serve and --serve-arg start a server, --url names one that runs")
	case a.Profile != "" && a.URL != "" && a.MetricsURL == "":
		return errors.New("--profile needs --metrics-url")
	}
	return nil
}

// scenarios are what a command asks for.
func (a *args) scenarios(command string) ([]scenario, error) {
	switch command {
	case "send":
		return a.Send.scenarios()
	case "deliver":
		return a.Deliver.scenarios()
	case "fanout":
		return a.Fanout.scenarios()
	case "idle":
		return a.Idle.scenarios()
	case "longpoll":
		return a.Longpoll.scenarios()
	case "account":
		return a.Account.scenarios()
	case "join":
		return a.Join.scenarios()
	case "growth", "large", "begin":
		if a.URL != "" {
			return nil, fmt.Errorf("%s starts its servers itself: --url has no place there", command)
		}
		switch command {
		case "growth":
			return a.Growth.scenarios()
		case "large":
			return a.Large.scenarios()
		}
		return a.Begin.scenarios()
	case "compare <one> <other>":
		return []scenario{}, nil
	case "cluster":
		if a.URL != "" {
			return nil, errors.New("cluster starts its nodes itself: --url has no place there")
		}
		return a.Cluster.scenarios()
	}
	return goals()
}

// goals are the scenarios with the parameters that goals were set for, and their
// neighbours.
func goals() ([]scenario, error) {
	var all []scenario
	var errs []error
	add := func(s []scenario, err error) { all, errs = append(all, s...), append(errs, err) }
	usual := roomArgs{Rooms: 64, Members: 10, Senders: 64, Size: 100}
	for _, transport := range []string{"http", "ws"} {
		for _, senders := range []int{64, 256} {
			r := usual
			r.Senders = senders
			add((&sendArgs{roomArgs: r, Transport: transport}).scenarios())
		}
	}
	add((&sendArgs{roomArgs: usual, Transport: "ws", Receivers: usual.Members}).scenarios())
	add((&deliverArgs{roomArgs: usual}).scenarios())
	add((&fanoutArgs{Members: 500, Senders: 32, Size: 100, Window: 32}).scenarios())
	add((&longpollArgs{roomArgs: usual, Rate: 200, Transport: "ws"}).scenarios())
	add((&accountArgs{Rooms: 300, Members: 300}).scenarios())
	add((&joinArgs{Members: 10_000, Joins: 200}).scenarios())
	add((&idleArgs{Sessions: 15000, Members: 10, Dialers: 64, Transport: "ws", Settle: 150 * time.Second}).scenarios())
	return all, errors.Join(errs...)
}

func (r *roomArgs) check() error {
	switch {
	case r.Rooms < 1 || r.Members < 1 || r.Senders < 1:
		return errors.New("--rooms, --members and --senders must be positive")
	case r.Senders > r.Rooms*r.Members:
		return fmt.Errorf("--senders: %d rooms with %d members have %s users only", r.Rooms, r.Members, strconv.Itoa(r.Rooms*r.Members))
	}
	return checkSize(r.Size)
}

// maxSize leaves room for the rest of an event of 64 KiB.
const maxSize = 60 << 10

func checkSize(n int) error {
	if n < 0 || n > maxSize {
		return fmt.Errorf("--size must be 0 to %d", maxSize)
	}
	return nil
}
