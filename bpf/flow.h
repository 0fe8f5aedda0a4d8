/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Names the flow of a packet and counts it. What cannot be parsed is counted as such: nothing here decides on a verdict.
 */
#ifndef FLOW_H
#define FLOW_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Protocol numbers; <linux/in.h> has them, and needs headers of one architecture. */
#define IPPROTO_HOPOPTS 0
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_DCCP 33
#define IPPROTO_ROUTING 43
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136

/* Direction of a flow as the pod sees it. */
enum direction {
	from_pod = 0,
	to_pod = 1,
};

/*
 * Key of a flow. An IPv4 address takes the first 4 bytes of its 16. Of what is neither IPv4 nor IPv6 only the Ethernet
 * type is known. Ports are in network byte order, 0 where the protocol has none and in fragments but the first.
 */
struct flow {
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
	__be16 ether_type;
	__u8 protocol;
	__u8 reserved;
	enum direction direction;
};

/* What was dropped of a flow. Times are CLOCK_BOOTTIME. */
struct flow_count {
	__u64 packets;
	__u64 bytes;
	__u64 first_nanos;
	__u64 last_nanos;
};

/* Indexes of flow_totals. */
enum flow_total {
	later_inserted = 0, /* flows that the first map had no room for; the LRU map may have evicted some of them since */
	not_counted = 1,    /* packets whose flow could be put into neither map */
	flow_total_max = 2,
};

/* The first flows stay: a flood of later ones cannot push the first destination out. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, struct flow_count);
} first_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow);
	__type(value, struct flow_count);
} later_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, flow_total_max);
	__type(key, enum flow_total);
	__type(value, __u64);
} flow_totals SEC(".maps");

/* The fixed parts of the two IP headers. */
struct ipv4 {
	__u8 version_length;
	__u8 service;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__u8 source[4];
	__u8 destination[4];
};

struct ipv6 {
	__be32 version_flow;
	__be16 payload;
	__u8 next;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
};

/* How many extension headers are followed to the ports. */
#define EXTENSIONS 4

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_DCCP;
}

/* read_ports reads both ports, which all of these protocols have first. */
static __always_inline void read_ports(struct __sk_buff *skb, struct flow *flow, __u32 offset)
{
	__be16 ports[2];

	if (!has_ports(flow->protocol) || bpf_skb_load_bytes_relative(skb, offset, ports, sizeof(ports), BPF_HDR_START_NET))
		return;
	flow->source_port = ports[0];
	flow->destination_port = ports[1];
}

/* read_ipv4 returns the offset of what follows the header, 0 when that is not the start of a datagram. */
static __always_inline __u32 read_ipv4(struct __sk_buff *skb, struct flow *flow)
{
	struct ipv4 header;

	if (bpf_skb_load_bytes_relative(skb, 0, &header, sizeof(header), BPF_HDR_START_NET))
		return 0;
	flow->protocol = header.protocol;
	__builtin_memcpy(flow->source, header.source, 4);
	__builtin_memcpy(flow->destination, header.destination, 4);
	if (header.fragment & bpf_htons(0x1fff))
		return 0;
	return (header.version_length & 0x0f) * 4;
}

static __always_inline __u32 read_ipv6(struct __sk_buff *skb, struct flow *flow)
{
	struct ipv6 header;
	__u32 offset = sizeof(header);
	__u8 extension[2];
	int i;

	if (bpf_skb_load_bytes_relative(skb, 0, &header, sizeof(header), BPF_HDR_START_NET))
		return 0;
	__builtin_memcpy(flow->source, header.source, 16);
	__builtin_memcpy(flow->destination, header.destination, 16);
	flow->protocol = header.next;
#pragma unroll
	for (i = 0; i < EXTENSIONS; i++) {
		if (flow->protocol != IPPROTO_HOPOPTS && flow->protocol != IPPROTO_ROUTING && flow->protocol != IPPROTO_DSTOPTS)
			break;
		if (bpf_skb_load_bytes_relative(skb, offset, extension, sizeof(extension), BPF_HDR_START_NET))
			return 0;
		flow->protocol = extension[0];
		offset += (extension[1] + 1) * 8;
	}
	return offset;
}

/* read_flow fills in a zeroed flow and returns the offset of its transport header from the network header, or 0. */
static __always_inline __u32 read_flow(struct __sk_buff *skb, struct flow *flow)
{
	__u32 offset = 0;

	flow->ether_type = (__be16)skb->protocol;
	if (flow->ether_type == bpf_htons(ETH_P_IP))
		offset = read_ipv4(skb, flow);
	else if (flow->ether_type == bpf_htons(ETH_P_IPV6))
		offset = read_ipv6(skb, flow);
	if (offset)
		read_ports(skb, flow, offset);
	return offset;
}

static __always_inline void add_total(enum flow_total index)
{
	__u64 *total = bpf_map_lookup_elem(&flow_totals, &index);

	if (total)
		__sync_fetch_and_add(total, 1);
}

/* count_flow counts one dropped packet of a flow. */
static __always_inline void count_flow(struct flow *flow, __u32 bytes, __u64 now)
{
	struct flow_count fresh = { .packets = 1, .bytes = bytes, .first_nanos = now, .last_nanos = now };
	struct flow_count *known = bpf_map_lookup_elem(&first_flows, flow);

	if (!known)
		known = bpf_map_lookup_elem(&later_flows, flow);
	if (known) {
		__sync_fetch_and_add(&known->packets, 1);
		__sync_fetch_and_add(&known->bytes, bytes);
		known->last_nanos = now;
		return;
	}
	if (!bpf_map_update_elem(&first_flows, flow, &fresh, BPF_NOEXIST))
		return;
	if (!bpf_map_update_elem(&later_flows, flow, &fresh, BPF_NOEXIST)) {
		add_total(later_inserted);
		return;
	}
	add_total(not_counted);
}

#endif
