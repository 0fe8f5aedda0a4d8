package volatile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// readInterfaces reads the devices of the namespace that the thread is in, and their addresses.
func readInterfaces(network *evidence.VolatileNetwork, limit int, found *findings) error {
	total := 0
	at := map[int]int{}
	links := table{"interfaces", limit, found}
	err := links.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), &total, func(message []byte) error {
		link, err := netlink.LinkDeserialize(nil, message)
		if err != nil {
			return err
		}
		at[link.Attrs().Index] = len(network.Interfaces)
		network.Interfaces = append(network.Interfaces, interfaceOf(link))
		return nil
	})
	if err != nil {
		return err
	}
	addresses := table{"addresses", limit, found}
	total = 0
	return addresses.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfInfomsg(unix.AF_UNSPEC), &total, func(message []byte) error {
		index, address, err := parseInterfaceAddress(message)
		if i, ok := at[index]; ok && err == nil {
			network.Interfaces[i].Addresses = append(network.Interfaces[i].Addresses, address)
		}
		return err
	})
}

// table is one of the kernel's, read up to a limit.
type table struct {
	name  string
	limit int
	found *findings
}

// dump calls each for the rows up to the limit. total counts all of them, and starts at what was counted before.
func (t table) dump(kind, answer int, header nl.NetlinkRequestData, total *int, each func(message []byte) error) error {
	var broken error
	request := nl.NewNetlinkRequest(kind, unix.NLM_F_DUMP)
	request.AddData(header)
	err := request.ExecuteIter(unix.NETLINK_ROUTE, uint16(answer), func(message []byte) bool { // #nosec G115 -- a message type
		if *total++; *total <= t.limit {
			if err := each(message); err != nil && broken == nil {
				broken = fmt.Errorf("read %s: %w", t.name, err)
			}
		}
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		t.found.add(t.name, GapChanged, err)
		err = nil
	}
	t.full(*total)
	return errors.Join(err, broken)
}

func (t table) full(total int) {
	if total > t.limit {
		t.found.add(t.name, GapLimit, limited(fmt.Sprintf("%d %s", total, t.name), int64(t.limit)))
	}
}

func interfaceOf(link netlink.Link) evidence.VolatileInterface {
	a := link.Attrs()
	device := evidence.VolatileInterface{
		Index: a.Index, Name: evidence.Text(a.Name), Type: link.Type(), Hardware: a.HardwareAddr.String(), MTU: a.MTU,
		Flags: a.Flags.String(), State: a.OperState.String(), Parent: a.ParentIndex, Master: a.MasterIndex,
		Addresses: []evidence.VolatileAddress{},
	}
	if a.Statistics != nil {
		device.Received = evidence.VolatileTraffic{Packets: a.Statistics.RxPackets, Bytes: a.Statistics.RxBytes}
		device.Sent = evidence.VolatileTraffic{Packets: a.Statistics.TxPackets, Bytes: a.Statistics.TxBytes}
	}
	return device
}

// parseInterfaceAddress reads struct ifaddrmsg and its attributes. IFA_LOCAL is the address where there is one, and
// IFA_ADDRESS its peer.
func parseInterfaceAddress(message []byte) (int, evidence.VolatileAddress, error) {
	var address evidence.VolatileAddress
	if len(message) < unix.SizeofIfAddrmsg {
		return 0, address, errTable
	}
	header := nl.DeserializeIfAddrmsg(message)
	address.Scope, address.Flags = int(header.Scope), uint32(header.Flags)
	attributes, err := nl.ParseRouteAttr(message[unix.SizeofIfAddrmsg:])
	var local, peer net.IP
	for _, attribute := range attributes {
		switch attribute.Attr.Type {
		case unix.IFA_LOCAL:
			local = attribute.Value
		case unix.IFA_ADDRESS:
			peer = attribute.Value
		case unix.IFA_FLAGS:
			address.Flags = word(attribute)
		}
	}
	if local == nil || local.Equal(peer) {
		local, peer = peer, nil
	}
	address.Address = prefix(local, header.Prefixlen)
	if peer != nil {
		address.Address, address.Peer = local.String(), prefix(peer, header.Prefixlen)
	}
	return int(header.Index), address, err
}

func prefix(ip net.IP, length uint8) string {
	if ip == nil {
		return ""
	}
	return fmt.Sprintf("%s/%d", ip, length)
}

func word(attribute syscall.NetlinkRouteAttr) uint32 {
	if len(attribute.Value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(attribute.Value)
}

// readRoutes reads the routes of all tables and families.
func readRoutes(network *evidence.VolatileNetwork, limit int, found *findings) error {
	total := 0
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	err := netlink.RouteListFilteredIter(netlink.FAMILY_ALL, all, netlink.RT_FILTER_TABLE, func(route netlink.Route) bool {
		if total++; total <= limit {
			network.Routes = append(network.Routes, routeOf(route))
		}
		return true
	})
	routes := table{"routes", limit, found}
	routes.full(total)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		found.add("routes", GapChanged, err)
		return nil
	}
	return err
}

func routeOf(route netlink.Route) evidence.VolatileRoute {
	found := evidence.VolatileRoute{
		Table: route.Table, Type: route.Type, Interface: route.LinkIndex, Priority: route.Priority,
		Protocol: int(route.Protocol), Scope: int(route.Scope),
	}
	if route.Dst != nil {
		found.Destination = route.Dst.String()
	}
	if route.Gw != nil {
		found.Gateway = route.Gw.String()
	}
	if route.Src != nil {
		found.Source = route.Src.String()
	}
	if route.Via != nil {
		found.Via = append(found.Via, route.Via.String())
	}
	for _, hop := range route.MultiPath {
		found.Via = append(found.Via, hop.String())
	}
	return found
}

// readRules reads the rules that choose a table.
func readRules(network *evidence.VolatileNetwork, limit int, found *findings) error {
	total := 0
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		rules := table{"rules", limit, found}
		header := nl.NewIfInfomsg(int(family))
		err := rules.dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, header, &total, func(message []byte) error {
			rule, err := parseRule(message)
			if err == nil {
				network.Rules = append(network.Rules, rule)
			}
			return err
		})
		if !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// parseRule reads struct fib_rule_hdr, which has the layout of rtmsg, and its attributes.
func parseRule(message []byte) (evidence.VolatileRule, error) {
	if len(message) < unix.SizeofRtMsg {
		return evidence.VolatileRule{}, errTable
	}
	header := nl.DeserializeRtMsg(message)
	rule := evidence.VolatileRule{Family: int(header.Family), Table: int(header.Table)}
	attributes, err := nl.ParseRouteAttr(message[unix.SizeofRtMsg:])
	for _, attribute := range attributes {
		switch attribute.Attr.Type {
		case nl.FRA_PRIORITY:
			rule.Priority = int(word(attribute))
		case unix.RTA_TABLE:
			rule.Table = int(word(attribute))
		case nl.FRA_SRC:
			rule.Source = prefix(attribute.Value, header.Src_len)
		case nl.FRA_DST:
			rule.Destination = prefix(attribute.Value, header.Dst_len)
		case nl.FRA_FWMARK:
			rule.Mark = word(attribute)
		case nl.FRA_IIFNAME:
			rule.Input = evidence.Text(strings.TrimRight(string(attribute.Value), "\x00"))
		case nl.FRA_OIFNAME:
			rule.Output = evidence.Text(strings.TrimRight(string(attribute.Value), "\x00"))
		}
	}
	return rule, err
}

// sizeofNeighbour is that of struct ndmsg: family, padding, interface, state, flags, type.
const sizeofNeighbour = 12

// readNeighbours reads the ARP and neighbour tables.
func readNeighbours(network *evidence.VolatileNetwork, limit int, found *findings) error {
	total := 0
	neighbours := table{"neighbours", limit, found}
	header := &netlink.Ndmsg{}
	return neighbours.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, header, &total, func(message []byte) error {
		neighbour, err := parseNeighbour(message)
		if err == nil {
			network.Neighbours = append(network.Neighbours, neighbour)
		}
		return err
	})
}

func parseNeighbour(message []byte) (evidence.VolatileNeighbour, error) {
	if len(message) < sizeofNeighbour {
		return evidence.VolatileNeighbour{}, errTable
	}
	neighbour := evidence.VolatileNeighbour{
		Interface: int(binary.NativeEndian.Uint32(message[4:])),
		State:     int(binary.NativeEndian.Uint16(message[8:])),
		Flags:     int(message[10]),
	}
	attributes, err := nl.ParseRouteAttr(message[sizeofNeighbour:])
	for _, attribute := range attributes {
		switch attribute.Attr.Type {
		case netlink.NDA_DST:
			neighbour.Address = net.IP(attribute.Value).String()
		case netlink.NDA_LLADDR:
			neighbour.Hardware = net.HardwareAddr(attribute.Value).String()
		}
	}
	return neighbour, err
}
