/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Lets the kubelet's own probes reach a pod that is cut off but runs: only TCP connections that the kubelet's processes
 * on this node open themselves, and the neighbour discovery that they need.
 */
#ifndef PROBE_H
#define PROBE_H

#include "flow.h"

/* The kubelet's cgroup. The loader keeps it up to date; 0 lets no probe pass. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} probe_source SEC(".maps");

/* A connection that the kubelet opened: from which hardware address, and when a packet of it last went to the pod. */
struct probe {
	__u8 source[6];
	__u8 reserved[2];
	__u64 last_nanos;
};

/* Connections that the kubelet opened, as seen towards the pod. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, struct flow);
	__type(value, struct probe);
} probe_flows SEC(".maps");

/* A connection of which nothing went to the pod for so long is over: no probe waits longer for its answer. */
#define PROBE_IDLE_NANOS (30ULL * 1000 * 1000 * 1000)

#define TCP_SYN 0x02
#define TCP_ACK 0x10

/* Offset of the flags in a TCP header. */
#define TCP_FLAGS 13

/* Offsets in an Ethernet header. */
#define MAC_DESTINATION 0
#define MAC_SOURCE 6

/* The largest frame that carries neighbour discovery and little else: an Ethernet header, padding included. */
#define ARP_FRAME 60
#define NEIGHBOUR_FRAME 86

#define ICMPV6_SOLICITATION 135
#define ICMPV6_ADVERTISEMENT 136

/* is_link_local tells an IPv6 address that no router forwards to: fe80::/10, or ff02::/16 of multicast. */
static __always_inline int is_link_local(const __u8 *address)
{
	return (address[0] == 0xfe && (address[1] & 0xc0) == 0x80) || (address[0] == 0xff && address[1] == 0x02);
}

/*
 * is_neighbour tells ARP and IPv6 neighbour discovery, of a size that has room for little else: from the pod only to where
 * no router takes it, to the pod only from the node itself. ARP is never routed.
 */
static __always_inline int is_neighbour(struct __sk_buff *skb, struct flow *flow, __u32 offset)
{
	__u8 type;

	if (skb->vlan_present || (flow->direction == to_pod && skb->ingress_ifindex))
		return 0;
	if (flow->ether_type == bpf_htons(ETH_P_ARP))
		return skb->len <= ARP_FRAME;
	if (flow->ether_type != bpf_htons(ETH_P_IPV6) || flow->protocol != IPPROTO_ICMPV6 || skb->len > NEIGHBOUR_FRAME || !offset)
		return 0;
	if (flow->direction == from_pod && !is_link_local(flow->destination))
		return 0;
	if (bpf_skb_load_bytes_relative(skb, offset, &type, sizeof(type), BPF_HDR_START_NET))
		return 0;
	return type == ICMPV6_SOLICITATION || type == ICMPV6_ADVERTISEMENT;
}

/* opens tells the first segment of a TCP connection. */
static __always_inline int opens(struct __sk_buff *skb, struct flow *flow, __u32 offset)
{
	__u8 flags;

	if (flow->protocol != IPPROTO_TCP || !offset)
		return 0;
	if (bpf_skb_load_bytes_relative(skb, offset + TCP_FLAGS, &flags, sizeof(flags), BPF_HDR_START_NET))
		return 0;
	return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* from_kubelet tells a packet that a socket of the kubelet's cgroup on this node sent. */
static __always_inline int from_kubelet(struct __sk_buff *skb)
{
	__u32 first = 0;
	__u64 *cgroup = bpf_map_lookup_elem(&probe_source, &first);

	return cgroup && *cgroup && bpf_skb_cgroup_id(skb) == *cgroup;
}

/*
 * learns_or_knows passes what goes from the node's own stack to the pod and is a probe: a packet that was forwarded
 * to the node has an ingress device, and a connection counts only when its first segment was seen to be the kubelet's.
 */
static __always_inline int learns_or_knows(struct __sk_buff *skb, struct flow *flow, __u32 offset)
{
	struct probe fresh = { .last_nanos = bpf_ktime_get_boot_ns() };
	struct probe *known;

	if (skb->ingress_ifindex || skb->vlan_present || flow->protocol != IPPROTO_TCP)
		return 0;
	if (opens(skb, flow, offset) && from_kubelet(skb)) {
		if (bpf_skb_load_bytes_relative(skb, MAC_SOURCE, fresh.source, sizeof(fresh.source), BPF_HDR_START_MAC))
			return 0;
		return !bpf_map_update_elem(&probe_flows, flow, &fresh, BPF_ANY);
	}
	known = bpf_map_lookup_elem(&probe_flows, flow);
	if (!known || fresh.last_nanos - known->last_nanos > PROBE_IDLE_NANOS)
		return 0;
	known->last_nanos = fresh.last_nanos;
	return 1;
}

/* known_probe returns the connection that a packet in either direction is of, if it is one of the kubelet's. */
static __always_inline struct probe *known_probe(struct flow *flow)
{
	struct flow towards = { .direction = to_pod };
	struct probe *known;

	if (flow->protocol != IPPROTO_TCP)
		return 0;
	if (flow->direction == to_pod) {
		known = bpf_map_lookup_elem(&probe_flows, flow);
	} else {
		__builtin_memcpy(towards.source, flow->destination, 16);
		__builtin_memcpy(towards.destination, flow->source, 16);
		towards.source_port = flow->destination_port;
		towards.destination_port = flow->source_port;
		towards.ether_type = flow->ether_type;
		towards.protocol = flow->protocol;
		known = bpf_map_lookup_elem(&probe_flows, &towards);
	}
	if (!known || bpf_ktime_get_boot_ns() - known->last_nanos > PROBE_IDLE_NANOS)
		return 0;
	return known;
}

/* answers tells a frame of the pod that is part of a probe and goes where the kubelet's segments came from, and nowhere else. */
static __always_inline int answers(struct __sk_buff *skb, struct flow *flow)
{
	struct probe *known = known_probe(flow);
	__u8 to[6];
	int i;

	if (!known || skb->vlan_present)
		return 0;
	if (bpf_skb_load_bytes_relative(skb, MAC_DESTINATION, to, sizeof(to), BPF_HDR_START_MAC))
		return 0;
#pragma unroll
	for (i = 0; i < 6; i++) {
		if (to[i] != known->source[i])
			return 0;
	}
	return 1;
}

#endif
