package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/integration/internal/tree"
)

const usage = `usage: probe sink PORT LOG | send KIND ADDRESS [TAG [DEVICE]] | ping ADDRESS DEVICE LOG | dial ADDRESS
     | give SOCKET ADDRESS | take SOCKET | bomb ADDRESS COUNT TAG | serve PORT | strike PATTERN PID | sctp
     | plant FOLDER | list ROOT`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// command takes a number of arguments, and some more if it says so.
type command struct {
	arguments, optional int
	run                 func(arguments []string) error
}

func commands() map[string]command {
	return map[string]command{
		"sink":   {arguments: 2, run: func(a []string) error { return sink(a[0], a[1]) }},
		"send":   {arguments: 2, optional: 2, run: runSend},
		"ping":   {arguments: 3, run: func(a []string) error { return ping(a[0], a[1], a[2]) }},
		"dial":   {arguments: 1, run: func(a []string) error { return dial(a[0]) }},
		"give":   {arguments: 2, run: func(a []string) error { return give(a[0], a[1]) }},
		"take":   {arguments: 1, run: func(a []string) error { return take(a[0]) }},
		"bomb":   {arguments: 3, run: func(a []string) error { return bomb(a[0], a[1], a[2]) }},
		"serve":  {arguments: 1, run: func(a []string) error { return serve(a[0]) }},
		"strike": {arguments: 2, run: func(a []string) error { return strike(a[0], a[1]) }},
		"sctp":   {run: runSCTP},
		"plant":  {arguments: 1, run: func(a []string) error { return plant(a[0]) }},
		"list":   {arguments: 1, run: runList},
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	wanted, known := commands()[args[0]]
	rest := args[1:]
	if !known || len(rest) < wanted.arguments || len(rest) > wanted.arguments+wanted.optional {
		return errors.New(usage)
	}
	return wanted.run(rest)
}

// runSend sends under the name of its kind, unless a tag is given.
func runSend(arguments []string) error {
	to := target{address: arguments[1], tag: arguments[0]}
	if len(arguments) > 2 {
		to.tag = arguments[2]
	}
	if len(arguments) > 3 {
		to.device = arguments[3]
	}
	return send(arguments[0], to)
}

// runSCTP prints whether the kernel has SCTP.
func runSCTP([]string) error {
	fmt.Println(supports(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP))
	return nil
}

func runList(arguments []string) error {
	found, err := tree.Walk(arguments[0])
	if err != nil {
		return err
	}
	return found.Write(os.Stdout)
}
