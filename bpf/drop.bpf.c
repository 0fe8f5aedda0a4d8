//go:build ignore
// SPDX-License-Identifier: Apache-2.0

/*
 * Drops every packet of a contained pod and counts what it dropped.
 *
 * One set of programs and one counters map serve one pod. drop_cgroup_* sit on the pod's cgroup and see what its sockets
 * receive and send; drop_tcx_* sit on the host side of the pod's veth devices and also see raw frames, which no socket
 * hook does. The verdict never depends on the packet or on the map: a lookup that misses loses a count, not a drop.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Hook of a counter: which program counted. Values are part of the pinned map's key. */
enum hook {
	cgroup_ingress = 0,
	cgroup_egress = 1,
	tcx_ingress = 2,
	tcx_egress = 3,
};

/* Key of a counter. ifindex is 0 for the cgroup hooks, which have no device. */
struct counter_key {
	enum hook hook;
	__u32 ifindex;
};

/* Counter of one attached hook. Times are CLOCK_BOOTTIME; 0 means that nothing was dropped yet. */
struct counter {
	__u64 packets;
	__u64 bytes;
	__u64 first_nanos;
	__u64 last_nanos;
};

/*
 * The loader inserts a zeroed counter before it attaches a hook, so programs only look up. 64 entries are the bound of
 * status.containment.hooks.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct counter_key);
	__type(value, struct counter);
} counters SEC(".maps");

/*
 * The two times are plain stores: two processors that drop the first packet at once may store either of their times,
 * which lie nanoseconds apart.
 */
static __always_inline void count(struct __sk_buff *skb, enum hook hook, __u32 ifindex)
{
	struct counter_key key = { .hook = hook, .ifindex = ifindex };
	struct counter *counter = bpf_map_lookup_elem(&counters, &key);
	__u64 now;

	if (!counter)
		return;
	now = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&counter->packets, 1);
	__sync_fetch_and_add(&counter->bytes, skb->len);
	if (!counter->first_nanos)
		counter->first_nanos = now;
	counter->last_nanos = now;
}

/* A cgroup_skb program drops with 0 and passes with 1. */
#define CGROUP_DROP 0

/* TCX_DROP ends the chain: programs behind it, such as a CNI's, do not see the packet. */
#define TCX_VERDICT_DROP 2

SEC("cgroup_skb/ingress")
int drop_cgroup_ingress(struct __sk_buff *skb)
{
	count(skb, cgroup_ingress, 0);
	return CGROUP_DROP;
}

SEC("cgroup_skb/egress")
int drop_cgroup_egress(struct __sk_buff *skb)
{
	count(skb, cgroup_egress, 0);
	return CGROUP_DROP;
}

SEC("tcx/ingress")
int drop_tcx_ingress(struct __sk_buff *skb)
{
	count(skb, tcx_ingress, skb->ifindex);
	return TCX_VERDICT_DROP;
}

SEC("tcx/egress")
int drop_tcx_egress(struct __sk_buff *skb)
{
	count(skb, tcx_egress, skb->ifindex);
	return TCX_VERDICT_DROP;
}

char _license[] SEC("license") = "Apache-2.0";
