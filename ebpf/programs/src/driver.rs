//! The XDP program of the uplink: services whose backends are on other machines.

use core::arch::asm;

use aya_ebpf::{
    bindings::{bpf_fib_lookup, xdp_action, xdp_md},
    helpers::{self, bpf_xdp_adjust_head},
    macros::xdp,
    programs::XdpContext,
};
use fairlead_abi::{Addr16, Be16};
use fairlead_datapath::{
    Headroom, Packet, checksum,
    driver::{self, Carried, Neighbour, Wire},
};

use crate::{
    link::{AF_INET, AF_INET6},
    maps::{Maps, overlay_port, work},
    span::Span,
};

/// Ingress of the uplink, before the kernel has made anything of a frame.
#[xdp]
#[inline(always)]
pub(crate) fn from_wire(ctx: XdpContext) -> u32 {
    if choose_frame(ctx.ctx) == 0 {
        return xdp_action::XDP_PASS;
    }
    carry_frame(ctx.ctx) as u32
}

/// Whether it is one to carry: 1, or 0. The two parts are not on the stack at once.
#[inline(never)]
extern "C" fn choose_frame(md: *mut xdp_md) -> u32 {
    driver::choose(&Frame::new(md), &Maps, work).is_some().into()
}

/// The second part, which the verifier walks once and not again for every way on which a frame is chosen: a global function, as
/// the one of the programs on links.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn carry_frame(md: *mut xdp_md) -> i32 {
    let Some(work) = work() else { return xdp_action::XDP_PASS as i32 };
    let action = match driver::carry(&mut Frame::new(md), &Maps, &Way { md }, work) {
        Carried::Left => xdp_action::XDP_PASS,
        Carried::Sent => xdp_action::XDP_TX,
        Carried::Spoilt => xdp_action::XDP_DROP,
    };
    action as i32
}

/// Out of the interface that a frame came by.
struct Way {
    md: *mut xdp_md,
}

impl Wire for Way {
    #[inline(always)]
    fn neighbour(&self, src: &Addr16, dst: &Addr16, len: u32) -> Option<Neighbour> {
        // SAFETY: every field of the structure is an integer.
        let mut params: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        // SAFETY: the kernel passes a valid context.
        let ifindex = unsafe { (*self.md).ingress_ifindex };
        params.ifindex = ifindex;
        params.__bindgen_anon_1.tot_len = len as u16;
        if dst.is_v4() {
            params.family = AF_INET as u8;
            params.__bindgen_anon_3.ipv4_src = src.v4_be();
            params.__bindgen_anon_4.ipv4_dst = dst.v4_be();
        } else {
            params.family = AF_INET6 as u8;
            params.__bindgen_anon_3.ipv6_src = src.0;
            params.__bindgen_anon_4.ipv6_dst = dst.0;
        }
        // SAFETY: the context is valid, and `params` for its size for the time of the call.
        let found = unsafe {
            let size = size_of::<bpf_fib_lookup>() as i32;
            helpers::bpf_fib_lookup(self.md.cast(), &mut params, size, 0)
        };
        // 0 is `BPF_FIB_LKUP_RET_SUCCESS`; all else is a reason to leave the packet to the kernel.
        if found != 0 || params.ifindex != ifindex {
            return None;
        }
        Some(Neighbour { src: params.smac, dst: params.dmac })
    }

    #[inline(always)]
    fn overlay_port(&self) -> Be16 {
        Be16::new(overlay_port() as u16)
    }

    #[inline(always)]
    fn count_carried(&self) {
        Maps.count_carried();
    }
}

/// A frame in the driver's memory.
struct Frame {
    md: *mut xdp_md,
    span: Span,
}

/// No header begins behind this; a mask of ones.
const OFFSET_MAX: u32 = 0x7ff;

impl Frame {
    #[inline(always)]
    fn new(md: *mut xdp_md) -> Self {
        let mut frame = Self { md, span: Span { data: 0, end: 0 } };
        frame.find();
        frame
    }

    #[inline(always)]
    fn find(&mut self) {
        // SAFETY: the kernel passes a valid context.
        unsafe {
            self.span.data = (*self.md).data as usize;
            self.span.end = (*self.md).data_end as usize;
        }
    }

    /// The bytes from an offset on. The verifier accepts it in a register of its own and with a bound that it can see, which
    /// the compiler would do without.
    #[inline(always)]
    fn from(&self, offset: u32) -> Option<Span> {
        if offset > OFFSET_MAX {
            return None;
        }
        let mut data = offset as u64;
        // SAFETY: two instructions on registers.
        unsafe {
            asm!(
                "{data} &= {max}",
                "{data} += {begin}",
                data = inout(reg) data,
                begin = in(reg) self.span.data,
                max = const OFFSET_MAX,
                options(pure, nomem, nostack),
            );
        }
        Some(Span { data: data as usize, end: self.span.end })
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn len(&self) -> u32 {
        (self.span.end - self.span.data) as u32
    }

    #[inline(always)]
    fn segment_len(&self) -> u32 {
        self.network_len()
    }

    #[inline(always)]
    fn load<T: Copy, const OFFSET: usize>(&self) -> Option<T> {
        self.span.load::<T, OFFSET>()
    }

    #[inline(always)]
    fn store<T: Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()> {
        self.span.store::<T, OFFSET>(value)
    }

    #[inline(always)]
    fn load_at<T: Copy>(&self, offset: u32) -> Option<T> {
        self.from(offset)?.load::<T, 0>()
    }

    #[inline(always)]
    fn store_at<T: Copy>(&mut self, offset: u32, value: T) -> Option<()> {
        self.from(offset)?.store::<T, 0>(value)
    }

    #[inline(always)]
    fn correct_checksum(&mut self, offset: u32, addresses: u32, rest: u32, optional: bool) -> Option<()> {
        checksum::correct(self, offset, addresses, rest, optional)
    }
}

impl Headroom for Frame {
    #[inline(always)]
    fn put_before<const LEN: usize>(&mut self) -> Option<()> {
        // SAFETY: the context is valid.
        let made = unsafe { bpf_xdp_adjust_head(self.md, -(LEN as i32)) };
        self.find();
        (made == 0).then_some(())
    }
}
