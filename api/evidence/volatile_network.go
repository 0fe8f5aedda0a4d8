package evidence

import "time"

// VolatileNetwork is one network namespace.
type VolatileNetwork struct {
	Kind VolatileKind `json:"kind"`
	// Namespace is its inode; processes name it in namespaces.network.
	Namespace uint64    `json:"namespace,string"`
	ReadAt    time.Time `json:"readAt"`
	// Node is whether it is the node's own: its sockets are those of every process of the node.
	Node         bool                `json:"node,omitempty"`
	Interfaces   []VolatileInterface `json:"interfaces"`
	Routes       []VolatileRoute     `json:"routes"`
	Rules        []VolatileRule      `json:"rules"`
	Neighbours   []VolatileNeighbour `json:"neighbours"`
	Sockets      []VolatileSocket    `json:"sockets"`
	SocketsTotal int                 `json:"socketsTotal"`
	// Missing names what is absent above.
	Missing []VolatileMissing `json:"missing,omitempty"`
}

// VolatileInterface is a network device with its addresses.
type VolatileInterface struct {
	Index     int               `json:"index"`
	Name      Text              `json:"name"`
	Type      string            `json:"type"`
	Hardware  string            `json:"hardware,omitempty"`
	MTU       int               `json:"mtu"`
	Flags     string            `json:"flags"`
	State     string            `json:"state"`
	Parent    int               `json:"parent,omitempty"`
	Master    int               `json:"master,omitempty"`
	Received  VolatileTraffic   `json:"received"`
	Sent      VolatileTraffic   `json:"sent"`
	Addresses []VolatileAddress `json:"addresses"`
}

// VolatileTraffic counts.
type VolatileTraffic struct {
	Packets uint64 `json:"packets,string"`
	Bytes   uint64 `json:"bytes,string"`
}

// VolatileAddress is an address of a device.
type VolatileAddress struct {
	// Address with prefix length.
	Address string `json:"address"`
	Peer    string `json:"peer,omitempty"`
	Scope   int    `json:"scope"`
	Flags   uint32 `json:"flags"`
}

// VolatileRoute is a route of any table.
type VolatileRoute struct {
	Table       int    `json:"table"`
	Type        int    `json:"type"`
	Destination string `json:"destination,omitempty"`
	Gateway     string `json:"gateway,omitempty"`
	// Via are the next hops of a route with several, or a gateway of another family.
	Via       []string `json:"via,omitempty"`
	Source    string   `json:"source,omitempty"`
	Interface int      `json:"interface,omitempty"`
	Priority  int      `json:"priority,omitempty"`
	Protocol  int      `json:"protocol"`
	Scope     int      `json:"scope"`
}

// VolatileRule chooses a table of routes.
type VolatileRule struct {
	Family      int    `json:"family"`
	Priority    int    `json:"priority"`
	Table       int    `json:"table"`
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination,omitempty"`
	Mark        uint32 `json:"mark,omitempty"`
	Input       Text   `json:"input,omitempty"`
	Output      Text   `json:"output,omitempty"`
}

// VolatileNeighbour is an entry of the ARP or neighbour table.
type VolatileNeighbour struct {
	Address   string `json:"address"`
	Hardware  string `json:"hardware,omitempty"`
	Interface int    `json:"interface"`
	// State and Flags as the kernel numbers them (NUD_*, NTF_*).
	State int `json:"state"`
	Flags int `json:"flags"`
}

// VolatileSocket is one socket as the kernel's tables list it.
type VolatileSocket struct {
	// Protocol is the name of the table: tcp, tcp6, udp, udp6, udplite, udplite6, raw, raw6, icmp, icmp6, unix, packet,
	// netlink.
	Protocol string `json:"protocol"`
	Inode    uint64 `json:"inode,string"`
	// Namespace is set on sockets of a process: the network namespace that lists it.
	Namespace uint64 `json:"namespace,string,omitempty"`
	State     string `json:"state,omitempty"`
	// Type of a unix socket: stream, dgram, seqpacket.
	Type string `json:"type,omitempty"`
	// Local and Peer as address:port. The port of a raw or icmp socket is its protocol or identifier.
	Local string `json:"local,omitempty"`
	Peer  string `json:"peer,omitempty"`
	// Path of a unix socket; an abstract one begins with a zero byte.
	Path Text `json:"path,omitempty"`
	// PeerInode is the other end of a unix socket.
	PeerInode uint64 `json:"peerInode,string,omitempty"`
	// Interface of a packet socket; 0 is all.
	Interface int `json:"interface,omitempty"`
	// Number of the protocol: the EtherType of a packet socket, the family of a netlink socket.
	Number int `json:"number,omitempty"`
	// PortID of a netlink socket.
	PortID       uint32 `json:"portId,omitempty"`
	UID          uint32 `json:"uid,omitempty"`
	ReceiveQueue uint32 `json:"receiveQueue,omitempty"`
	SendQueue    uint32 `json:"sendQueue,omitempty"`
}
