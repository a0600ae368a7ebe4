//! What the kernel lets this process have.

use std::io;

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
};

/// Lets this process have as many descriptors open as it ever may; tells how many. The usual 1,024 are kept for programs
/// that call `select`, which is none of ours, and full splices need more.
pub fn raise_descriptors() -> io::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// Keeps what this process holds in memory to itself: no core is written when it aborts, and no other process of this user
/// may look into it by ptrace or `/proc`. Whoever holds keys says this before it reads them.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // The limit does not count where cores go to a program (core_pattern); this does.
    prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_leaves_no_core() {
        // In a process of its own: the other tests of this one may want to be looked at.
        let own = std::env::current_exe().unwrap();
        let child = std::process::Command::new(own)
            .args([
                "--exact",
                "platform::limits::tests::inside_a_process_of_its_own",
                "--ignored",
            ])
            .status()
            .unwrap();
        assert!(child.success());
    }

    #[test]
    #[ignore = "changes this whole process: run by the test above"]
    fn inside_a_process_of_its_own() {
        assert!(prctl::get_dumpable().unwrap());
        keep_memory_private().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
    }

    #[test]
    fn nothing_is_left_between_what_is_used_and_what_may_be() {
        let most = raise_descriptors().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }
}
