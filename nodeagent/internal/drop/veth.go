package drop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"ugallu.io/forensics/api/v1alpha1"
)

// device is the node's side of a veth pair whose other side is in the pod.
type device struct {
	name    string
	ifindex int
	netns   uint64 // inode of the pod's side
	inside  inside // the pod's side
}

// inside is the pod's side of a device.
type inside struct {
	namespace *os.File
	name      string
	ifindex   int
	address   net.IP // nil when it has none
}

// Kinds of device that lead nowhere by themselves: they are software in the same namespace, and what they send leaves
// through another device of it. The kernel puts some of the tunnels into every new namespace.
func leadsNowhere(link netlink.Link) bool {
	if link.Attrs().Flags&net.FlagLoopback != 0 {
		return true
	}
	if link.Attrs().NetNsID >= 0 {
		return false
	}
	switch link.Type() {
	case "dummy", "bridge", "ipip", "sit", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "ip6gretap", "ip6erspan", "vti", "vti6":
		return true
	}
	return false
}

// same says that another look found the device where it was.
func (d device) same(other device) bool {
	return d.ifindex == other.ifindex && d.netns == other.netns && d.inside.ifindex == other.inside.ifindex
}

// leading returns the node's side of every veth pair that leads out of the pod's network namespaces, and says what else
// leads out. Processes in the node's own namespace have no device of their own. Namespaces that are known to be another
// pod's are left alone: a process that joined one must not have that pod cut off. A namespace that cannot be looked at does
// not keep what others have.
func (w work) leading(ctx context.Context) (devices []device, shortfalls []string, err error) {
	switch {
	case len(w.namespaces) == 0:
		shortfalls = append(shortfalls, "no process of the pod was found: its network namespace is not known")
	case len(w.target.Networks) == 0 && w.namespaces[w.nodeInode] == nil:
		shortfalls = append(shortfalls, "the runtime does not tell which network is the pod's: it is looked for by the pod's processes alone")
	}
	foreign, short := w.foreign()
	shortfalls = append(shortfalls, short...)
	looked := 0
	var errs []error
	for inode := range w.namespaces {
		switch {
		case inode == w.nodeInode:
			shortfalls = append(shortfalls, "the pod uses the node's network: raw frames are not cut off")
			continue
		case foreign[inode]:
			shortfalls = append(shortfalls, "a process of the pod is in the network of another pod, which is not cut off")
			continue
		case ctx.Err() != nil:
			return devices, shortfalls, errors.Join(append(errs, ctx.Err())...)
		}
		looked++
		found, short, err := w.search(inode).devices()
		devices, shortfalls, errs = append(devices, found...), append(shortfalls, short...), append(errs, err)
	}
	if looked > 0 && len(devices) == 0 {
		shortfalls = append(shortfalls, "no device leads from the pod to the node: it may have been moved to where no process is")
	}
	return devices, shortfalls, errors.Join(errs...)
}

// foreign are the namespaces that are another pod's. Who they belong to is asked only when there is one that is neither the
// pod's own nor the node's, which is rare. What is known of it counts where not all is.
func (w work) foreign() (foreign map[uint64]bool, shortfalls []string) {
	joined := 0
	for inode := range w.namespaces {
		if inode != w.nodeInode && !w.own[inode] {
			joined++
		}
	}
	if joined == 0 || w.target.Others == nil {
		return nil, nil
	}
	foreign, err := w.target.Others()
	if err != nil {
		return foreign, []string{fmt.Sprintf("whose the networks are that the pod's processes are in, %d beside its own, is not known: %v", joined, err)}
	}
	return foreign, nil
}

// search of one network namespace of the pod.
type search struct {
	node      *os.File
	nodeInode uint64
	pod       namespaces
	inode     uint64
	file      *os.File
	// inside says that the pod's side of a device gets a hook as well.
	inside bool
}

func (w work) search(inode uint64) search {
	return search{
		node: w.node, nodeInode: w.nodeInode, pod: w.namespaces, inode: inode, file: w.namespaces[inode],
		inside: w.device == v1alpha1.HookTcx,
	}
}

func (s search) devices() (devices []device, shortfalls []string, err error) {
	handle, err := netlink.NewHandleAt(netns.NsHandle(s.file.Fd()))
	if err != nil {
		return nil, nil, fmt.Errorf("open netlink in network namespace %d: %w", s.inode, err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		return nil, nil, fmt.Errorf("list the devices of network namespace %d: %w", s.inode, err)
	}
	// What the pod's namespace calls the node's. Without a veth between the two it has no name for it: -1.
	nodeID, err := handle.GetNetNsIdByFd(int(s.node.Fd()))
	if err != nil {
		nodeID = -1
	}
	shortfalls = s.fastPaths(links)
	siblings := s.siblings(handle)
	for _, link := range links {
		switch {
		case link.Type() == "ifb" && s.inside:
			// What it sends again is seen on the pod's side of the devices that lead out, unless XDP sends it on.
		case leadsNowhere(link) || staysInPod(link, siblings):
		case link.Type() != "veth" || nodeID < 0 || link.Attrs().NetNsID != nodeID:
			shortfalls = append(shortfalls, fmt.Sprintf("device %s (%s) of the pod leads out on a way that is not cut off: its raw frames pass",
				link.Attrs().Name, link.Type()))
		default:
			found, err := s.peer(link)
			if err != nil {
				shortfalls = append(shortfalls, err.Error())
				continue
			}
			found.inside = inside{namespace: s.file, name: link.Attrs().Name, ifindex: link.Attrs().Index}
			if found.inside.address, err = addressOf(handle, link); err != nil {
				return nil, nil, err
			}
			devices = append(devices, found)
		}
	}
	return devices, shortfalls, nil
}

// addressOf returns an address of a device of the pod.
func addressOf(handle *netlink.Handle, link netlink.Link) (net.IP, error) {
	list, err := handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of device %s: %w", link.Attrs().Name, err)
	}
	addresses := make([]net.IP, 0, len(list))
	for _, address := range list {
		addresses = append(addresses, address.IP)
	}
	return firstAddress(addresses), nil
}

// fastPaths names what has an XDP program. XDP runs before the mark is looked at that an ifb device leaves on what it sends
// again, and what XDP sends passes by the hook on the pod's side; marked, the node's side shows it to no program either.
func (s search) fastPaths(links []netlink.Link) (shortfalls []string) {
	var names []string
	for _, link := range links {
		if xdp := link.Attrs().Xdp; xdp != nil && xdp.Attached {
			names = append(names, link.Attrs().Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("device %s in network namespace %d of the pod has an XDP program, as %d more there have: what XDP sends passes by the hooks",
		names[0], s.inode, len(names)-1)}
}

// siblings are the names that this namespace has for the pod's others. One that no device leads to has none: -1.
func (s search) siblings(handle *netlink.Handle) map[int]bool {
	ids := map[int]bool{}
	for inode, file := range s.pod {
		if id, err := handle.GetNetNsIdByFd(int(file.Fd())); err == nil && id >= 0 && inode != s.nodeInode {
			ids[id] = true
		}
	}
	return ids
}

// staysInPod tells a veth pair between two network namespaces of the same pod, or within one.
func staysInPod(link netlink.Link, siblings map[int]bool) bool {
	return link.Type() == "veth" && (link.Attrs().NetNsID < 0 || siblings[link.Attrs().NetNsID])
}

// peer returns the node's side of a veth device, after it has checked that the node's side points back.
func (s search) peer(link netlink.Link) (device, error) {
	name := link.Attrs().Name
	node, err := netlink.NewHandleAt(netns.NsHandle(s.node.Fd()))
	if err != nil {
		return device{}, fmt.Errorf("open netlink on the node: %w", err)
	}
	defer node.Close()
	peer, err := node.LinkByIndex(link.Attrs().ParentIndex)
	if err != nil {
		return device{}, fmt.Errorf("find the node's side of device %s: %w", name, err)
	}
	podID, err := node.GetNetNsIdByFd(int(s.file.Fd()))
	if err != nil {
		return device{}, fmt.Errorf("ask the node for its name of network namespace %d: %w", s.inode, err)
	}
	back := peer.Attrs()
	if peer.Type() != "veth" || back.ParentIndex != link.Attrs().Index || podID < 0 || back.NetNsID != podID {
		return device{}, fmt.Errorf("device %s on the node does not point back to device %s of the pod", back.Name, name)
	}
	return device{name: back.Name, ifindex: back.Index, netns: s.inode}, nil
}
