package main

import (
	"errors"
	"fmt"
	"os"

	"ugallu.io/forensics/integration/internal/tree"
)

const usage = `usage: probe sink PORT LOG | send tcp|udp ADDRESS | dial ADDRESS | plant FOLDER | list ROOT`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	command, rest := "", args
	if len(args) > 0 {
		command, rest = args[0], args[1:]
	}
	switch {
	case command == "sink" && len(rest) == 2:
		return sink(rest[0], rest[1])
	case command == "send" && len(rest) == 2:
		return send(rest[0], rest[1])
	case command == "dial" && len(rest) == 1:
		return dial(rest[0])
	case command == "plant" && len(rest) == 1:
		return plant(rest[0])
	case command == "list" && len(rest) == 1:
		found, err := tree.Walk(rest[0])
		if err != nil {
			return err
		}
		return found.Write(os.Stdout)
	default:
		return errors.New(usage)
	}
}
