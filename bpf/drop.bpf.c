//go:build ignore
// SPDX-License-Identifier: Apache-2.0

/*
 * Cuts a pod off and counts what it dropped, by hook and by flow.
 *
 * Two sets of programs and one set of maps serve one pod. drop_* drop every packet: their verdict depends neither on the
 * packet nor on a map, a lookup that misses loses a count and not a drop. isolate_* are for a pod that is cut off while
 * its processes run: they pass loopback inside the pod and the kubelet's probes, and drop everything else.
 *
 * *_cgroup_* sit on the pod's cgroup and see what its sockets receive and send; *_device_* sit on the node's side of the
 * pod's veth devices and also see raw frames, which no socket hook does. What a device receives there is what the pod
 * sends. *_inside_* sit on the pod's own side of the same devices: what an ifb device in the pod sends again is marked, and
 * the first device that receives it, which is the node's side, takes the mark off and shows the packet to no program.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "probe.h"

/* Hook of a counter: which program counted. Values are part of the pinned map's key. */
enum hook {
	cgroup_ingress = 0,
	cgroup_egress = 1,
	device_ingress = 2,
	device_egress = 3,
	inside_egress = 4,
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
static __always_inline void count(struct __sk_buff *skb, enum hook hook, __u32 ifindex, __u64 now)
{
	struct counter_key key = { .hook = hook, .ifindex = ifindex };
	struct counter *counter = bpf_map_lookup_elem(&counters, &key);

	if (!counter)
		return;
	__sync_fetch_and_add(&counter->packets, 1);
	__sync_fetch_and_add(&counter->bytes, skb->len);
	if (!counter->first_nanos)
		counter->first_nanos = now;
	counter->last_nanos = now;
}

/* dropped counts a packet whose flow has been read. */
static __always_inline void dropped(struct __sk_buff *skb, struct flow *flow, enum hook hook, __u32 ifindex)
{
	__u64 now = bpf_ktime_get_boot_ns();

	count(skb, hook, ifindex, now);
	count_flow(flow, skb->len, now);
}

/* A cgroup_skb program drops with 0 and passes with 1. */
#define CGROUP_DROP 0
#define CGROUP_PASS 1

/* The same two values as TC_ACT_SHOT and TC_ACT_UNSPEC: the programs run under tcx and under clsact. */
#define DEVICE_DROP 2
#define DEVICE_NEXT -1

/* Every network namespace has its loopback device under this index, and no other device can take it. */
#define LOOPBACK 1

SEC("cgroup_skb/ingress")
int drop_cgroup_ingress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = to_pod };

	read_flow(skb, &flow);
	dropped(skb, &flow, cgroup_ingress, 0);
	return CGROUP_DROP;
}

SEC("cgroup_skb/egress")
int drop_cgroup_egress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = from_pod };

	read_flow(skb, &flow);
	dropped(skb, &flow, cgroup_egress, 0);
	return CGROUP_DROP;
}

SEC("tcx/ingress")
int drop_device_ingress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = from_pod };

	read_flow(skb, &flow);
	dropped(skb, &flow, device_ingress, skb->ifindex);
	return DEVICE_DROP;
}

SEC("tcx/egress")
int drop_device_egress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = to_pod };

	read_flow(skb, &flow);
	dropped(skb, &flow, device_egress, skb->ifindex);
	return DEVICE_DROP;
}

SEC("tcx/egress")
int drop_inside_egress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = from_pod };

	read_flow(skb, &flow);
	dropped(skb, &flow, inside_egress, skb->ifindex);
	return DEVICE_DROP;
}

SEC("cgroup_skb/ingress")
int isolate_cgroup_ingress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = to_pod };

	read_flow(skb, &flow);
	if (skb->ifindex == LOOPBACK || known_probe(&flow))
		return CGROUP_PASS;
	dropped(skb, &flow, cgroup_ingress, 0);
	return CGROUP_DROP;
}

SEC("cgroup_skb/egress")
int isolate_cgroup_egress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = from_pod };

	read_flow(skb, &flow);
	if (skb->ifindex == LOOPBACK || known_probe(&flow))
		return CGROUP_PASS;
	dropped(skb, &flow, cgroup_egress, 0);
	return CGROUP_DROP;
}

SEC("tcx/ingress")
int isolate_device_ingress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = from_pod };
	__u32 offset = read_flow(skb, &flow);

	if (answers(skb, &flow) || is_neighbour(skb, &flow, offset))
		return DEVICE_NEXT;
	dropped(skb, &flow, device_ingress, skb->ifindex);
	return DEVICE_DROP;
}

SEC("tcx/egress")
int isolate_device_egress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = to_pod };
	__u32 offset = read_flow(skb, &flow);

	if (learns_or_knows(skb, &flow, offset) || is_neighbour(skb, &flow, offset))
		return DEVICE_NEXT;
	dropped(skb, &flow, device_egress, skb->ifindex);
	return DEVICE_DROP;
}

SEC("tcx/egress")
int isolate_inside_egress(struct __sk_buff *skb)
{
	struct flow flow = { .direction = from_pod };
	__u32 offset = read_flow(skb, &flow);

	if (answers(skb, &flow) || is_neighbour(skb, &flow, offset))
		return DEVICE_NEXT;
	dropped(skb, &flow, inside_egress, skb->ifindex);
	return DEVICE_DROP;
}

char _license[] SEC("license") = "Apache-2.0";
