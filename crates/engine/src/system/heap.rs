//! Memory that has been freed but that the C library keeps, because small pieces in use lie between the freed ones.

/// The number of freed bytes that makes returning them worthwhile.
pub(crate) const WORTH_TRIMMING: usize = 16 * 1024 * 1024;

/// Returns whole free pages to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: this is the declaration in malloc.h.
    unsafe extern "C" {
        /// See malloc_trim(3): `pad` is the amount left untouched at the top of the heap.
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: any thread may call it at any time, and it takes no pointers.
    unsafe { malloc_trim(0) };
}

/// Other C libraries return freed memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
