//! What the kernel is asked about processes.

use std::io;

/// Has the kernel kill this process when the thread that started it ends. False: this system cannot.
///
/// # Errors
/// The kernel's.
#[cfg(target_os = "linux")]
pub fn die_with_parent() -> io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(true)
}

/// Has the kernel kill this process when the thread that started it ends. False: this system cannot.
///
/// # Errors
/// None here.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent() -> io::Result<bool> {
    Ok(false)
}
