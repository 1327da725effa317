//! Packets of links, as the kernel keeps them there.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{
        bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use fairlead_datapath::{Packet, Resizable};

use crate::span::Span;

/// The most that a decision reads: Ethernet and IPv6 headers.
const HEADERS_LEN: usize = 14 + 40;

/// The part of a packet that can be read and written in place.
pub(crate) struct Skb {
    skb: *mut __sk_buff,
    span: Span,
}

impl Skb {
    /// Makes sure that the headers are in that part: a driver may have left them in a fragment.
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        let skb = ctx.skb.skb;
        let len = ctx.len();
        if ctx.data() + HEADERS_LEN > ctx.data_end() && len as usize > ctx.data_end() - ctx.data() {
            let wanted = if len < HEADERS_LEN as u32 { len } else { HEADERS_LEN as u32 };
            // SAFETY: the context is valid; `data` and `data_end` are read after the call. When it fails, the
            // datapath finds the packet too short.
            let _short = unsafe { bpf_skb_pull_data(skb, wanted) };
        }
        Self::again(ctx)
    }

    /// The same in a later part of a program, whose first part has made sure.
    #[inline(always)]
    pub(crate) fn again(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb, span: Span { data: ctx.data(), end: ctx.data_end() } }
    }
}

/// Network and TCP headers of a segment, with the options that Linux uses.
const SEGMENT_HEADERS_V4: u32 = 20 + 32;
const SEGMENT_HEADERS_V6: u32 = 40 + 32;
/// `ETH_P_IP` in network order.
pub(crate) const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;

impl Skb {
    /// The helpers below may move the packet.
    #[inline(always)]
    fn find(&mut self) {
        // SAFETY: the kernel passes a valid context.
        unsafe {
            self.span.data = (*self.skb).data as usize;
            self.span.end = (*self.skb).data_end as usize;
        }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn segment_len(&self) -> u32 {
        // SAFETY: as above.
        let (segment, protocol) = unsafe { ((*self.skb).gso_size, (*self.skb).protocol) };
        match segment {
            0 => self.network_len(),
            _ if protocol == ETH_P_IP => segment + SEGMENT_HEADERS_V4,
            _ => segment + SEGMENT_HEADERS_V6,
        }
    }

    #[inline(always)]
    fn load_at<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value`, which is plain bytes by the trait's bound, or fails.
        unsafe {
            let to = value.as_mut_ptr().cast();
            let loaded = bpf_skb_load_bytes(self.skb.cast(), offset, to, size_of::<T>() as u32);
            (loaded == 0).then(|| value.assume_init())
        }
    }

    #[inline(always)]
    fn store_at<T: Copy>(&mut self, offset: u32, value: T) -> Option<()> {
        // SAFETY: the helper reads all of `value`.
        let stored = unsafe {
            bpf_skb_store_bytes(self.skb.cast(), offset, (&raw const value).cast(), size_of::<T>() as u32, 0)
        };
        self.find();
        (stored == 0).then_some(())
    }

    #[inline(always)]
    fn correct_checksum(&mut self, offset: u32, addresses: u32, rest: u32, optional: bool) -> Option<()> {
        let optional = if optional { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        let pseudo = optional | BPF_F_PSEUDO_HDR as u64;
        // Length 0 in the flags: the difference is computed already.
        // SAFETY: the context is valid; the helpers check the offset.
        let corrected = unsafe {
            bpf_l4_csum_replace(self.skb.cast(), offset, 0, addresses as u64, pseudo)
                | bpf_l4_csum_replace(self.skb.cast(), offset, 0, rest as u64, optional)
        };
        self.find();
        (corrected == 0).then_some(())
    }

    #[inline(always)]
    fn header_changed(&mut self, difference: u32) {
        // SAFETY: the context is valid.
        let _keeps_none = unsafe { bpf_csum_update(self.skb, difference) };
    }

    #[inline(always)]
    fn load<T: Copy, const OFFSET: usize>(&self) -> Option<T> {
        self.span.load::<T, OFFSET>()
    }

    #[inline(always)]
    fn store<T: Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()> {
        self.span.store::<T, OFFSET>(value)
    }
}

impl Resizable for Skb {
    #[inline(always)]
    fn truncate(&mut self, len: u32) -> Option<()> {
        // What is beyond the end must not be made up.
        if len > self.len() {
            return None;
        }
        // SAFETY: the context is valid.
        let cut = unsafe { bpf_skb_change_tail(self.skb.cast(), len, 0) };
        self.find();
        (cut == 0).then_some(())
    }

    #[inline(always)]
    fn make_room<const LEN: usize>(&mut self) -> Option<()> {
        // SAFETY: the context is valid.
        let made = unsafe { bpf_skb_adjust_room(self.skb.cast(), LEN as i32, BPF_ADJ_ROOM_MAC, 0) };
        self.find();
        (made == 0).then_some(())
    }
}
