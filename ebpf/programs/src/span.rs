//! Bytes of a packet that can be read and written in place.

use core::{arch::asm, mem::MaybeUninit};

/// From where to where they are.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) data: usize,
    pub(crate) end: usize,
}

/// Loads and stores at constant offsets from a register, of any alignment. A plain access to a type that may be
/// misaligned would become one access per byte, and the compiler's switch for misaligned accesses also concerns the
/// stack, which the verifier does not allow.
macro_rules! access {
    ($($load:ident $store:ident $ty:ident $mnemonic:literal;)*) => { $(
        /// # Safety
        /// The bytes at `base + OFFSET + MORE` lie within the packet, and the caller has compared that with its end.
        #[inline(always)]
        unsafe fn $load<const OFFSET: usize, const MORE: usize>(base: usize) -> $ty {
            let value: u64;
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    concat!("{value} = *(", $mnemonic, " *)({base} + {offset})"),
                    value = out(reg) value,
                    base = in(reg) base,
                    offset = const OFFSET + MORE,
                    options(pure, readonly, nostack),
                );
            }
            value as $ty
        }

        /// # Safety
        /// As for the load.
        #[inline(always)]
        unsafe fn $store<const OFFSET: usize, const MORE: usize>(base: usize, value: $ty) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    concat!("*(", $mnemonic, " *)({base} + {offset}) = {value}"),
                    value = in(reg) value as u64,
                    base = in(reg) base,
                    offset = const OFFSET + MORE,
                    options(nostack),
                );
            }
        }
    )* };
}

access! {
    load_u8 store_u8 u8 "u8";
    load_u16 store_u16 u16 "u16";
    load_u32 store_u32 u32 "u32";
}

impl Span {
    #[inline(always)]
    fn has(&self, end: usize) -> bool {
        self.data + end <= self.end
    }

    /// # Safety
    /// A `T` at `OFFSET` lies within the packet, and `to` is one.
    #[inline(always)]
    unsafe fn load_words<T, const OFFSET: usize>(&self, to: *mut u32) {
        const { assert!(size_of::<T>() <= 2 || size_of::<T>() % 4 == 0 && size_of::<T>() <= 40) }
        macro_rules! words {
            ($($at:literal)*) => { $(
                if size_of::<T>() > $at {
                    // SAFETY: the caller's.
                    unsafe { to.byte_add($at).write_unaligned(load_u32::<OFFSET, $at>(self.data)) };
                }
            )* };
        }
        words!(0 4 8 12 16 20 24 28 32 36);
    }

    /// # Safety
    /// A `T` at `OFFSET` lies within the packet, and `from` is one.
    #[inline(always)]
    unsafe fn store_words<T, const OFFSET: usize>(&self, from: *const u32) {
        const { assert!(size_of::<T>() <= 2 || size_of::<T>() % 4 == 0 && size_of::<T>() <= 40) }
        macro_rules! words {
            ($($at:literal)*) => { $(
                if size_of::<T>() > $at {
                    // SAFETY: the caller's.
                    unsafe { store_u32::<OFFSET, $at>(self.data, from.byte_add($at).read_unaligned()) };
                }
            )* };
        }
        words!(0 4 8 12 16 20 24 28 32 36);
    }

    #[inline(always)]
    pub(crate) fn load<T: Copy, const OFFSET: usize>(&self) -> Option<T> {
        if !self.has(OFFSET + size_of::<T>()) {
            return None;
        }
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr();
        // SAFETY: the bytes lie within the packet, as compared above; all of `value` is written, which is plain
        // bytes by the trait's bound.
        unsafe {
            match size_of::<T>() {
                1 => to.cast::<u8>().write(load_u8::<OFFSET, 0>(self.data)),
                2 => to.cast::<u16>().write_unaligned(load_u16::<OFFSET, 0>(self.data)),
                _ => self.load_words::<T, OFFSET>(to.cast()),
            }
            Some(value.assume_init())
        }
    }

    #[inline(always)]
    pub(crate) fn store<T: Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()> {
        if !self.has(OFFSET + size_of::<T>()) {
            return None;
        }
        let from = &raw const value;
        // SAFETY: as in `load`.
        unsafe {
            match size_of::<T>() {
                1 => store_u8::<OFFSET, 0>(self.data, from.cast::<u8>().read()),
                2 => store_u16::<OFFSET, 0>(self.data, from.cast::<u16>().read_unaligned()),
                _ => self.store_words::<T, OFFSET>(from.cast()),
            }
        }
        Some(())
    }
}
