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

/* Connections that the kubelet opened, as seen towards the pod. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, struct flow);
	__type(value, __u64);
} probe_flows SEC(".maps");

#define TCP_SYN 0x02
#define TCP_ACK 0x10

/* Offset of the flags in a TCP header. */
#define TCP_FLAGS 13

/* The largest frame that carries neighbour discovery and nothing else: an Ethernet header, padding included. */
#define ARP_FRAME 60
#define NEIGHBOUR_FRAME 86

#define ICMPV6_SOLICITATION 135
#define ICMPV6_ADVERTISEMENT 136

/* is_neighbour tells ARP and IPv6 neighbour discovery of a size that has no room for anything else. */
static __always_inline int is_neighbour(struct __sk_buff *skb, struct flow *flow, __u32 offset)
{
	__u8 type;

	if (flow->ether_type == bpf_htons(ETH_P_ARP))
		return skb->len <= ARP_FRAME;
	if (flow->ether_type != bpf_htons(ETH_P_IPV6) || flow->protocol != IPPROTO_ICMPV6 || skb->len > NEIGHBOUR_FRAME || !offset)
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
	__u64 now = bpf_ktime_get_boot_ns();

	if (skb->ingress_ifindex)
		return 0;
	if (opens(skb, flow, offset) && from_kubelet(skb))
		return !bpf_map_update_elem(&probe_flows, flow, &now, BPF_ANY);
	return flow->protocol == IPPROTO_TCP && bpf_map_lookup_elem(&probe_flows, flow) != 0;
}

/* knows tells a flow that is a probe. */
static __always_inline int knows(struct flow *flow)
{
	struct flow towards = {};

	if (flow->protocol != IPPROTO_TCP)
		return 0;
	if (flow->direction == to_pod)
		return bpf_map_lookup_elem(&probe_flows, flow) != 0;
	__builtin_memcpy(towards.source, flow->destination, 16);
	__builtin_memcpy(towards.destination, flow->source, 16);
	towards.source_port = flow->destination_port;
	towards.destination_port = flow->source_port;
	towards.ether_type = flow->ether_type;
	towards.protocol = flow->protocol;
	towards.direction = to_pod;
	return bpf_map_lookup_elem(&probe_flows, &towards) != 0;
}

#endif
