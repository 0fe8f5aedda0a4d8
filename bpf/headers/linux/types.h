/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Stands in for the kernel's header of this name, which wants asm/types.h: the bpf target has no architecture folder.
 * These are the types that linux/bpf.h and bpf_helpers.h use, with the widths they have on every 64-bit host.
 */
#pragma once

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef signed short __s16;
typedef unsigned int __u32;
typedef signed int __s32;
typedef unsigned long long __u64;
typedef signed long long __s64;

typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#define __aligned_u64 __u64 __attribute__((aligned(8)))
