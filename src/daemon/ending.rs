//! Whether a stop is the end, or the agent is about to come back: systemd knows, by the job of our unit.

use std::time::Duration;

use crate::platform::service_manager;

/// What comes after TERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing: the others are told, and all of it goes.
    Stop,
    /// Another run, at once: nobody is told, and what the service manager keeps waits for it.
    Restart,
}

/// How long systemd may take to answer. A bus that is gone says so at once; one that is busy with an upgrade is worth
/// waiting for, since a restart that is taken for the end costs every connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks systemd. Where that cannot be done it is the end: a peer that is told `left` and comes back costs less than
/// one that is gone and counts as there.
pub(super) async fn ask() -> Ending {
    if !service_manager::is_present() {
        return Ending::Stop;
    }
    match tokio::time::timeout(PATIENCE, service_manager::job_of_own_unit()).await {
        Ok(Ok(job)) => judge(job.as_deref()),
        Ok(Err(error)) => {
            tracing::info!(%error, "The system bus does not say why the agent is to stop");
            Ending::Stop
        }
        Err(_elapsed) => {
            tracing::info!("The system bus is silent about why the agent is to stop");
            Ending::Stop
        }
    }
}

/// What a job of the unit means for the process that is told to end; without one a person killed it.
fn judge(job: Option<&str>) -> Ending {
    match job {
        // `restart` becomes `start` when the stopping half is over; `try-restart` where the unit runs is one too.
        Some("restart" | "start" | "try-restart") => Ending::Restart,
        Some(_) | None => Ending::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_job_that_starts_the_unit_again_is_a_restart() {
        for job in ["restart", "start", "try-restart"] {
            assert_eq!(judge(Some(job)), Ending::Restart, "{job}");
        }
        for job in [
            "stop",
            "reload",
            "verify-active",
            "nop",
            "reload-or-start",
            "",
        ] {
            assert_eq!(judge(Some(job)), Ending::Stop, "{job}");
        }
        assert_eq!(judge(None), Ending::Stop, "killed by hand");
    }
}
