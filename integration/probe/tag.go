package main

import (
	"bytes"
	"strings"
)

// Every message that is counted begins with a mark and a tag, which names its sender, and is as long as messageSize.
const (
	mark        = "probe:"
	maxTag      = 32
	messageSize = 64
)

// message is one message of the sender that tag names, small enough for one packet.
func message(tag string) []byte {
	head := mark + tag + "\n"
	return []byte(head + strings.Repeat(".", messageSize-len(head)-1) + "\n")
}

// tagOf reads the tag of a message; ok is false for what is not one of ours.
func tagOf(content []byte) (tag string, ok bool) {
	rest, marked := bytes.CutPrefix(content, []byte(mark))
	name, _, ended := bytes.Cut(rest, []byte("\n"))
	if !marked || !ended || !isTag(string(name)) {
		return "", false
	}
	return string(name), true
}

// isTag holds for a tag that is one word in the log and fits into a message.
func isTag(tag string) bool {
	return tag != "" && len(tag) <= maxTag && !strings.ContainsAny(tag, " \n")
}
