//! Whose the files of the state directory are: whoever owns the directory, also when root runs the agent by hand for once.
//! The unit's agent, which is no root, must be able to read them afterwards.

use std::{
    io,
    os::unix::fs::{MetadataExt as _, lchown},
    path::Path,
};

use crate::platform::credentials;

/// Gives `path`, which this agent made in `folder`, to the folder's owner. Only root can, and only root has to.
pub(super) fn follow(folder: &Path, path: &Path) {
    if credentials::own_uid() != 0 {
        return;
    }
    if let Err(error) = give(folder, path) {
        tracing::warn!(
            path = %path.display(), %error,
            "This belongs to root now; an agent that is not root will not be able to read it"
        );
    }
}

fn give(folder: &Path, path: &Path) -> io::Result<()> {
    let (owner, now) = (std::fs::metadata(folder)?, std::fs::symlink_metadata(path)?);
    if (owner.uid(), owner.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    lchown(path, Some(owner.uid()), Some(owner.gid()))
}

/// What else may help who is not root.
pub(super) fn or_as_root() -> &'static str {
    match credentials::own_uid() {
        0 => "",
        _ => ", or run as root",
    }
}

/// Whether what went wrong is that a file belongs to somebody else.
pub(super) fn is_closed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    })
}
