//! TCX programs: pod routing.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, BPF_FIB_LKUP_RET_FRAG_NEEDED,
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_OK, TC_ACT_SHOT, bpf_fib_lookup,
        bpf_redir_neigh, bpf_tunnel_key,
    },
    helpers::{
        self, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
        bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key,
    },
    macros::classifier,
    programs::TcContext,
};
use fairlead_abi::{Addr16, names::globals::FORWARD_BY_STACK, node::OVERLAY_VNI};
use fairlead_datapath::{
    Verdict,
    header::{IPV4_SRC, IPV6_SRC},
    link::{self, Entry, From},
};

use crate::{
    maps::{Maps, forwarding, masquerade_mark, overlay_ifindex, uplink_ifindex, work},
    skb::{ETH_P_IP, Skb},
};

/// `AF_INET`.
pub(crate) const AF_INET: u32 = 2;
/// `AF_INET6`.
pub(crate) const AF_INET6: u32 = 10;
/// `PACKET_HOST` of `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// Ingress of a pod's host-side veth.
#[classifier]
#[inline(always)]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    if let Some(verdict) = link::to_neighbour(&mut Skb::new(&ctx), &Maps, ifindex(&ctx)) {
        return act(&ctx, verdict, Direction::Inward);
    }
    go_on(&ctx, look_from_pod(ctx.skb.skb))
}

#[inline(never)]
extern "C" fn look_from_pod(skb: *mut __sk_buff) -> u64 {
    let ctx = TcContext::new(skb);
    after(&ctx, link::beyond_neighbours(&mut Skb::again(&ctx), &Maps, ifindex(&ctx), work))
}

/// Egress of a pod's host-side veth.
#[classifier]
#[inline(always)]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    let entry = link::to_pod(&mut skb, &Maps, ifindex(&ctx), work);
    act(&ctx, entry.finish(&mut skb, &Maps, work), Direction::Inward)
}

/// Ingress of the uplink and of the other interfaces by which clients outside come.
#[classifier]
#[inline(always)]
pub(crate) fn from_uplink(ctx: TcContext) -> i32 {
    if is_of_vlan(&ctx) {
        return TC_ACT_OK as i32;
    }
    go_on(&ctx, look_from_uplink(ctx.skb.skb))
}

#[inline(never)]
extern "C" fn look_from_uplink(skb: *mut __sk_buff) -> u64 {
    let ctx = TcContext::new(skb);
    after(&ctx, link::from_uplink(&mut Skb::new(&ctx), &Maps, work))
}

/// Egress of the same interfaces. What came in by another one has been looked at there, unless the pods' interfaces are
/// somebody else's.
#[classifier]
#[inline(always)]
pub(crate) fn to_uplink(ctx: TcContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let forwarded = unsafe { (*ctx.skb.skb).ingress_ifindex } != 0;
    if forwarded && forwarding() != FORWARD_BY_STACK || is_of_vlan(&ctx) {
        return TC_ACT_OK as i32;
    }
    let mut skb = Skb::new(&ctx);
    let entry = link::to_uplink(&mut skb, &Maps, forwarded, work);
    act(&ctx, entry.finish(&mut skb, &Maps, work), Direction::Outward)
}

/// Ingress of the overlay.
#[classifier]
#[inline(always)]
pub(crate) fn from_overlay(ctx: TcContext) -> i32 {
    let Some(via) = sender_of_tunnel(&ctx) else { return TC_ACT_SHOT as i32 };
    // The link-layer address inside the tunnel is nobody's here; the packet is for the host or for a pod all the same.
    // SAFETY: the context is valid.
    let _same_type = unsafe { bpf_skb_change_type(ctx.skb.skb, PACKET_HOST) };
    let mut skb = Skb::new(&ctx);
    let entry = link::from_overlay(&mut skb, &Maps, &via, work);
    act(&ctx, entry.finish(&mut skb, &Maps, work), Direction::Inward)
}

/// Set in what a first look returns when it is not the kernel's action: the lower half is then a slot, and the upper the marks
/// of [`From`].
const SERVE: u64 = 1 << 63;

/// Says what a first look comes to, in one word.
#[inline(always)]
fn after(ctx: &TcContext, entry: Entry) -> u64 {
    match entry {
        Entry::Done(verdict) => u64::from(act(ctx, verdict, Direction::Inward) as u32),
        Entry::Serve(From { slot, marks }) => SERVE | u64::from(marks) << 32 | u64::from(slot),
    }
}

/// The second part of a program whose first was a look. The two are not on the stack at once, for which it is too small.
#[inline(always)]
fn go_on(ctx: &TcContext, looked: u64) -> i32 {
    if looked & SERVE == 0 {
        return looked as i32;
    }
    serve_packet(ctx.skb.skb, looked as u32, ((looked & !SERVE) >> 32) as u32)
}

/// What pods and clients outside send, as far as services may have to do with it. It is a global function in the kernel's
/// sense: the verifier walks it once in each program, by itself, and not again for every way that leads here. Arguments can only
/// be numbers then; the rest is in this processor's [`work`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn serve_packet(skb: *mut __sk_buff, slot: u32, marks: u32) -> i32 {
    let ctx = TcContext::new(skb);
    let Some(work) = work() else { return TC_ACT_SHOT as i32 };
    let from = From { slot, marks: marks & From::OF_POD_OR_OUTSIDE };
    let verdict = link::serve(&mut Skb::again(&ctx), &Maps, from, work);
    act(&ctx, verdict, Direction::Inward)
}

/// Which way the packets of a hook go.
#[derive(Clone, Copy)]
enum Direction {
    /// Into the host.
    Inward,
    /// Out of the uplink.
    Outward,
}

/// Turns a verdict into what the kernel is to do.
#[inline(always)]
fn act(ctx: &TcContext, verdict: Verdict, direction: Direction) -> i32 {
    match verdict {
        Verdict::Pass | Verdict::Refuse(_) => TC_ACT_OK as i32,
        Verdict::PassMasqueraded => {
            // SAFETY: the context is valid, and a classifier may write the mark.
            unsafe { (*ctx.skb.skb).mark |= masquerade_mark() };
            TC_ACT_OK as i32
        }
        Verdict::Drop(_) => TC_ACT_SHOT as i32,
        // What the host itself has sent it hears from the uplink.
        Verdict::Answer(_) => {
            let flags = match direction {
                Direction::Inward => 0,
                Direction::Outward => BPF_F_INGRESS,
            };
            // SAFETY: the helper takes two numbers.
            unsafe { bpf_redirect(ifindex(ctx), flags as u64) as i32 }
        }
        Verdict::RedirectPeer { ifindex } => match direction {
            // SAFETY: as above.
            Direction::Inward => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
            // On the way out there is no other end of a veth to go to directly.
            // SAFETY: as above.
            Direction::Outward => unsafe { bpf_redirect(ifindex, 0) as i32 },
        },
        Verdict::RedirectNeigh { ifindex, next_hop } => redirect_neigh(ifindex, &next_hop),
        Verdict::RedirectRouted => redirect_routed(ctx),
        Verdict::RedirectOverlay { node } => redirect_overlay(ctx, &node),
    }
}

/// The packet is of a VLAN on this interface, and passes by the VLAN's own interface, too.
#[inline(always)]
fn is_of_vlan(ctx: &TcContext) -> bool {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx.skb.skb).vlan_tci & VLAN_ID != 0 }
}

/// `VLAN_VID_MASK` of `linux/if_vlan.h`.
const VLAN_ID: u32 = 0x0fff;

/// Sends a packet to where the kernel's routes lead for the addresses that it has become, by whichever interface that is. Where
/// they lead nowhere it leaves by the uplink, if that one knows a way.
#[inline(always)]
fn redirect_routed(ctx: &TcContext) -> i32 {
    // SAFETY: every field of the structure is an integer.
    let mut way: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    way.ifindex = ifindex(ctx);
    ask_for_addresses(ctx, &mut way);
    // SAFETY: the context is valid, and `way` for its size for the time of the call.
    let found = unsafe {
        let size = size_of::<bpf_fib_lookup>() as i32;
        helpers::bpf_fib_lookup(ctx.skb.skb.cast(), &mut way, size, 0)
    };
    // Whoever has a route has an interface and a next hop. That the neighbour is not known yet is the next helper's business,
    // and a packet that is too long is no shorter on another way.
    if !matches!(
        found as u32,
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED
    ) {
        // SAFETY: without a next hop the helper asks the kernel's routes for one.
        return unsafe { bpf_redirect_neigh(uplink_ifindex(), core::ptr::null_mut(), 0, 0) as i32 };
    }
    // SAFETY: every field of the structure is an integer.
    let mut params: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    params.nh_family = way.family as u32;
    // SAFETY: all of either union is initialized, and its bytes are the next hop's in network order.
    params.__bindgen_anon_1.ipv6_nh = unsafe { way.__bindgen_anon_4.ipv6_dst };
    redirect_to(way.ifindex, &mut params)
}

/// Puts the packet's addresses into a question for the kernel's routes. Copied by the helper: every way through the program
/// that ends here would otherwise be walked through the comparisons with the packet's end once more, by the verifier. A
/// packet that is shorter has no route.
#[inline(always)]
fn ask_for_addresses(ctx: &TcContext, question: &mut bpf_fib_lookup) {
    let skb = ctx.skb.skb;
    let (src, dst) = (&raw mut question.__bindgen_anon_3, &raw mut question.__bindgen_anon_4);
    // SAFETY: the context is valid, and either union is 16 bytes long.
    unsafe {
        if (*skb).protocol == ETH_P_IP {
            question.family = AF_INET as u8;
            helpers::bpf_skb_load_bytes(skb.cast(), IPV4_SRC as u32, src.cast(), 4);
            helpers::bpf_skb_load_bytes(skb.cast(), IPV4_SRC as u32 + 4, dst.cast(), 4);
        } else {
            question.family = AF_INET6 as u8;
            helpers::bpf_skb_load_bytes(skb.cast(), IPV6_SRC as u32, src.cast(), 16);
            helpers::bpf_skb_load_bytes(skb.cast(), IPV6_SRC as u32 + 16, dst.cast(), 16);
        }
    }
}

/// How much of a tunnel key the helpers are given: without the local address, which kernels before 6.0 do not know.
const TUNNEL_KEY_LEN: u32 = core::mem::offset_of!(bpf_tunnel_key, __bindgen_anon_3) as u32;
/// Hop limit of the packets outside.
const TUNNEL_TTL: u8 = 64;

#[inline(always)]
fn redirect_overlay(ctx: &TcContext, node: &Addr16) -> i32 {
    // SAFETY: every field of the structure is an integer.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = OVERLAY_VNI;
    key.tunnel_ttl = TUNNEL_TTL;
    let flags = if node.is_v4() {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(node.v4_be());
        BPF_F_ZERO_CSUM_TX
    } else {
        key.__bindgen_anon_1.remote_ipv6 = node.0;
        BPF_F_TUNINFO_IPV6
    };
    // SAFETY: `key` is valid for its size for the time of the call.
    let set = unsafe { bpf_skb_set_tunnel_key(ctx.skb.skb, &mut key, TUNNEL_KEY_LEN, flags as u64) };
    if set != 0 {
        return TC_ACT_SHOT as i32;
    }
    // SAFETY: the helper takes two numbers.
    unsafe { bpf_redirect(overlay_ifindex(), 0) as i32 }
}

/// The node that a packet of the overlay comes from.
#[inline(always)]
fn sender_of_tunnel(ctx: &TcContext) -> Option<Addr16> {
    // SAFETY: every field of the structure is an integer.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: `key` is valid for its size for the time of the calls.
    unsafe {
        if bpf_skb_get_tunnel_key(ctx.skb.skb, &mut key, TUNNEL_KEY_LEN, 0) == 0 {
            return Some(Addr16::from_v4_be(key.__bindgen_anon_1.remote_ipv4.to_be()));
        }
        let flags = BPF_F_TUNINFO_IPV6 as u64;
        if bpf_skb_get_tunnel_key(ctx.skb.skb, &mut key, TUNNEL_KEY_LEN, flags) == 0 {
            return Some(Addr16::from_v6_be(key.__bindgen_anon_1.remote_ipv6));
        }
    }
    None
}

#[inline(always)]
fn redirect_neigh(ifindex: u32, next_hop: &Addr16) -> i32 {
    // SAFETY: every field of the structure is an integer.
    let mut params: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    if next_hop.is_v4() {
        params.nh_family = AF_INET;
        params.__bindgen_anon_1.ipv4_nh = next_hop.v4_be();
    } else {
        params.nh_family = AF_INET6;
        params.__bindgen_anon_1.ipv6_nh = next_hop.0;
    }
    redirect_to(ifindex, &mut params)
}

#[inline(always)]
fn redirect_to(ifindex: u32, params: &mut bpf_redir_neigh) -> i32 {
    // SAFETY: `params` is valid for its size for the time of the call.
    unsafe { bpf_redirect_neigh(ifindex, params, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx.skb.skb).ifindex }
}
