package volatile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

// maxIndexed is how many sockets of all namespaces are remembered to be joined with descriptors, at about 300 bytes each.
const maxIndexed = 100_000

// socketIndex finds a socket by its inode, which is one number space for the whole node.
type socketIndex struct {
	known map[uint64]*evidence.VolatileSocket
	room  int
}

// add remembers the sockets of a namespace; false when there is no room for all.
func (s *socketIndex) add(namespace uint64, list []evidence.VolatileSocket) bool {
	for i := range list {
		if list[i].Inode == 0 {
			continue // no descriptor leads to it any more
		}
		if s.room == 0 {
			return false
		}
		s.room--
		socket := list[i]
		socket.Namespace = namespace
		s.known[socket.Inode] = &socket
	}
	return true
}

func (s *socketIndex) find(inode uint64) *evidence.VolatileSocket { return s.known[inode] }

var errTable = errors.New("not a line of a table of sockets")

// internetTables are those with addresses and ports.
var internetTables = []string{
	"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6",
}

// tcpStates as the kernel numbers them.
var tcpStates = []string{
	"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
	"LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE",
}

// readSockets reads every table of the namespace that the thread is in. A kernel without a protocol has no table for it.
func readSockets(network *evidence.VolatileNetwork, limit int, found *findings) error {
	sockets := &socketList{network: network, limit: limit}
	for _, table := range internetTables {
		sockets.table(table, parseInternet, found)
	}
	sockets.table("packet", parsePacket, found)
	sockets.table("netlink", parseNetlink, found)
	err := readUnix(sockets, found)
	if network.SocketsTotal > limit {
		found.add("sockets", GapLimit, limited(fmt.Sprintf("%d sockets", network.SocketsTotal), int64(limit)))
	}
	return err
}

type socketList struct {
	network *evidence.VolatileNetwork
	limit   int
}

// add counts a socket and keeps it up to the limit.
func (s *socketList) add(socket evidence.VolatileSocket) {
	s.network.SocketsTotal++
	if len(s.network.Sockets) < s.limit {
		s.network.Sockets = append(s.network.Sockets, socket)
	}
}

// table reads one of the kernel's text tables, whose lines hold numbers only.
func (s *socketList) table(name string, parse func(string, []string) (evidence.VolatileSocket, error), found *findings) {
	file, err := os.Open("/proc/thread-self/net/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		found.add("sockets", GapUnreadable, fmt.Errorf("open table %s: %w", name, err))
		return
	}
	defer func() { _ = file.Close() }()
	heading := true
	var broken error
	err = scan(file, name, func(line string, _ bool) bool {
		if heading {
			heading = false
			return true
		}
		socket, err := parse(name, strings.Fields(line))
		if err != nil {
			broken = fmt.Errorf("read table %s: %q: %w", name, line, err)
			return true
		}
		s.add(socket)
		return true
	})
	if err := errors.Join(err, broken); err != nil {
		found.add("sockets", GapUnreadable, err)
	}
}

// parseInternet reads `0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`.
func parseInternet(table string, fields []string) (evidence.VolatileSocket, error) {
	if len(fields) < 10 {
		return evidence.VolatileSocket{}, errTable
	}
	local, localErr := parseAddress(fields[1])
	peer, peerErr := parseAddress(fields[2])
	state, stateErr := strconv.ParseUint(fields[3], 16, 8)
	send, receive, _ := strings.Cut(fields[4], ":")
	sendQueue, sendErr := strconv.ParseUint(send, 16, 32)
	receiveQueue, receiveErr := strconv.ParseUint(receive, 16, 32)
	uid, uidErr := strconv.ParseUint(fields[7], 10, 32)
	inode, inodeErr := strconv.ParseUint(fields[9], 10, 64)
	return evidence.VolatileSocket{
		Protocol: table, Inode: inode, State: socketState(int(state)), // #nosec G115 -- one byte
		Local: local, Peer: peer, UID: uint32(uid), SendQueue: uint32(sendQueue), ReceiveQueue: uint32(receiveQueue),
	}, errors.Join(localErr, peerErr, stateErr, sendErr, receiveErr, uidErr, inodeErr)
}

func socketState(number int) string {
	if number < len(tcpStates) {
		return tcpStates[number]
	}
	return strconv.Itoa(number)
}

// parseAddress reads words of 32 bits as the kernel holds them in memory, a colon and a port.
func parseAddress(text string) (string, error) {
	words, portText, ok := strings.Cut(text, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if !ok || err != nil || (len(words) != 8 && len(words) != 32) {
		return "", errTable
	}
	address := make([]byte, 0, 16)
	for ; words != ""; words = words[8:] {
		word, err := strconv.ParseUint(words[:8], 16, 32)
		if err != nil {
			return "", errTable
		}
		address = binary.NativeEndian.AppendUint32(address, uint32(word))
	}
	ip, _ := netip.AddrFromSlice(address)
	return netip.AddrPortFrom(ip, uint16(port)).String(), nil
}

// parsePacket reads `sk RefCnt Type Proto Iface R Rmem User Inode`.
func parsePacket(table string, fields []string) (evidence.VolatileSocket, error) {
	if len(fields) < 9 {
		return evidence.VolatileSocket{}, errTable
	}
	protocol, protocolErr := strconv.ParseUint(fields[3], 16, 16)
	device, deviceErr := strconv.Atoi(fields[4])
	queue, queueErr := strconv.ParseUint(fields[6], 10, 32)
	uid, uidErr := strconv.ParseUint(fields[7], 10, 32)
	inode, inodeErr := strconv.ParseUint(fields[8], 10, 64)
	return evidence.VolatileSocket{
		Protocol: table, Inode: inode, Interface: device, Number: int(protocol), UID: uint32(uid), ReceiveQueue: uint32(queue),
	}, errors.Join(protocolErr, deviceErr, queueErr, uidErr, inodeErr)
}

// parseNetlink reads `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`.
func parseNetlink(table string, fields []string) (evidence.VolatileSocket, error) {
	if len(fields) < 10 {
		return evidence.VolatileSocket{}, errTable
	}
	family, familyErr := strconv.Atoi(fields[1])
	port, portErr := strconv.ParseUint(fields[2], 10, 32)
	queue, queueErr := strconv.ParseUint(fields[4], 10, 32)
	inode, inodeErr := strconv.ParseUint(fields[9], 10, 64)
	return evidence.VolatileSocket{
		Protocol: table, Inode: inode, Number: family, PortID: uint32(port), ReceiveQueue: uint32(queue),
	}, errors.Join(familyErr, portErr, queueErr, inodeErr)
}
