//! A process of this machine.

use std::fs;

/// The name of the program that a process runs, cut to 15 bytes by the kernel (proc(5), `comm`); `None` if it cannot be
/// told.
pub fn program(pid: i64) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_and_none_that_is_not_there_has() {
        assert!(program(std::process::id().into()).is_some_and(|name| !name.is_empty()));
        assert_eq!(program(-1), None);
    }
}
