//! What the kernel lets this process have.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many descriptors open as it ever may; tells how many. The usual 1,024 are kept for programs
/// that call `select`, which is none of ours, and full splices need more.
pub fn raise_descriptors() -> io::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_between_what_is_used_and_what_may_be() {
        let most = raise_descriptors().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }
}
