package volatile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// Attributes of a unix socket that are asked for: UDIAG_SHOW_NAME, UDIAG_SHOW_PEER, UDIAG_SHOW_RQLEN, UDIAG_SHOW_UID.
const showUnix = 1<<0 | 1<<2 | 1<<4 | 1<<6

// Attributes of an answer.
const (
	unixName  = 0
	unixPeer  = 2
	unixQueue = 4
	unixUID   = 7
)

// sizeofUnix is that of struct unix_diag_msg: family, type, state, padding, inode, cookie.
const sizeofUnix = 16

// unixRequest is struct unix_diag_req: every state, every inode.
type unixRequest struct{}

func (unixRequest) Len() int { return 24 }

func (r unixRequest) Serialize() []byte {
	request := make([]byte, r.Len())
	request[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(request[4:], ^uint32(0)) // states
	binary.NativeEndian.PutUint32(request[12:], showUnix)
	binary.NativeEndian.PutUint64(request[16:], ^uint64(0)) // no cookie
	return request
}

// readUnix asks the kernel, and not its text table: there a name with a newline makes a line of its own.
func readUnix(sockets *socketList, found *findings) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	request.AddData(unixRequest{})
	var broken error
	err := request.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(message []byte) bool {
		socket, err := parseUnix(message)
		if err != nil {
			broken = err
			return false
		}
		sockets.add(socket)
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		found.add("sockets", GapChanged, err)
		err = nil
	}
	if errors.Is(err, unix.ENOENT) {
		found.add("sockets", GapForgeable, fmt.Errorf("this kernel has no unix_diag: %w", err))
		sockets.table("unix", parseUnixLine, found)
		return nil
	}
	return errors.Join(err, broken)
}

func parseUnix(message []byte) (evidence.VolatileSocket, error) {
	if len(message) < sizeofUnix {
		return evidence.VolatileSocket{}, errTable
	}
	socket := evidence.VolatileSocket{
		Protocol: "unix", Type: unixType(int(message[1])), State: socketState(int(message[2])),
		Inode: uint64(binary.NativeEndian.Uint32(message[4:])),
	}
	attributes, err := nl.ParseRouteAttr(message[sizeofUnix:])
	if err != nil {
		return socket, fmt.Errorf("read a unix socket: %w", err)
	}
	for _, attribute := range attributes {
		value := attribute.Value
		switch {
		case attribute.Attr.Type == unixName:
			socket.Path = evidence.Text(value)
		case len(value) < 4:
		case attribute.Attr.Type == unixPeer:
			socket.PeerInode = uint64(binary.NativeEndian.Uint32(value))
		case attribute.Attr.Type == unixQueue:
			socket.ReceiveQueue = binary.NativeEndian.Uint32(value)
		case attribute.Attr.Type == unixUID:
			socket.UID = binary.NativeEndian.Uint32(value)
		}
	}
	return socket, nil
}

func unixType(number int) string {
	switch number {
	case unix.SOCK_STREAM:
		return "stream"
	case unix.SOCK_DGRAM:
		return "dgram"
	case unix.SOCK_SEQPACKET:
		return "seqpacket"
	}
	return fmt.Sprint(number)
}

// parseUnixLine reads `Num: RefCount Protocol Flags Type St Inode`; the name after that can be anything.
func parseUnixLine(table string, fields []string) (evidence.VolatileSocket, error) {
	if len(fields) < 7 {
		return evidence.VolatileSocket{}, errTable
	}
	kind, kindErr := strconv.ParseUint(fields[4], 16, 16)
	inode, inodeErr := strconv.ParseUint(fields[6], 10, 64)
	return evidence.VolatileSocket{
		Protocol: table, Inode: inode, Type: unixType(int(kind)),
	}, errors.Join(kindErr, inodeErr)
}
