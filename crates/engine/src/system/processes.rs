//! Requests to the kernel about processes.

use std::io;

/// Asks the kernel to kill this process when the thread that started it ends. Returns false if this system cannot do
/// that.
///
/// # Errors
/// Those of the kernel.
#[cfg(target_os = "linux")]
pub fn die_with_parent() -> io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(true)
}

/// Asks the kernel to kill this process when the thread that started it ends. Returns false if this system cannot do
/// that.
///
/// # Errors
/// None on this system.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent() -> io::Result<bool> {
    Ok(false)
}
