//! Memory that was freed, but that the C library keeps for later: small pieces in use lie between the freed ones.

/// Freed bytes that are worth the work of giving them back.
pub(crate) const WORTH_TRIMMING: usize = 16 * 1024 * 1024;

/// Gives whole free pages back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    unsafe extern "C" {
        /// See malloc_trim(3): `pad` is what is left untouched at the top of the heap.
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: it may be called at any time and by any thread, and takes no pointers.
    unsafe { malloc_trim(0) };
}

/// Other C libraries give freed pages back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
