package evidence

import "time"

// MediaTypeFlows is that of an object with one Flow a line, zstd-compressed.
const MediaTypeFlows = "application/vnd.ugallu.forensics.flows.v1.ndjson+zstd"

// FlowDirection is the direction as the pod sees it.
type FlowDirection string

// Flow directions.
const (
	FlowFromPod FlowDirection = "FromPod"
	FlowToPod   FlowDirection = "ToPod"
)

// Flow is one flow of which packets were dropped. Of what is neither IPv4 nor IPv6 only the Ethernet type is known.
type Flow struct {
	Direction FlowDirection `json:"direction"`
	// EtherType such as 2048 for IPv4, 2054 for ARP, 34525 for IPv6.
	EtherType uint16 `json:"etherType"`
	// Protocol above IP, such as 6 for TCP, 17 for UDP.
	Protocol        uint8  `json:"protocol"`
	Source          string `json:"source,omitempty"`
	Destination     string `json:"destination,omitempty"`
	SourcePort      uint16 `json:"sourcePort,omitempty"`
	DestinationPort uint16 `json:"destinationPort,omitempty"`
	Packets         uint64 `json:"packets"`
	Bytes           uint64 `json:"bytes"`
	// First is whether the flow is one of the first 1,024, which nothing can push out.
	First     bool      `json:"first"`
	FirstDrop time.Time `json:"firstDrop"`
	LastDrop  time.Time `json:"lastDrop"`
}
