//! What the service manager is told of the agent's life: `sd_notify`. Without one nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

use super::view::Published;
use crate::{
    api::{Level, State},
    time::Moment,
};

/// Everything that was there before is there again.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent cannot start, and why; it ends after `pause`, to be started again.
pub(super) fn cannot_start(why: &str, pause: Duration) {
    let line = format!(
        "cannot start: {why}. Tried again every {} s",
        pause.as_secs()
    );
    tell(&[NotifyState::Status(&line)]);
}

/// The settings are read again; [`ready`] ends it.
pub(super) fn reloading() {
    // systemd orders this against its own request by the time, and without it takes the reload for failed.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "No monotonic clock"),
    }
}

/// The agent ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The line that `systemctl status` shows; said when it changes.
#[derive(Debug, Default)]
pub(super) struct StatusLine(String);

impl StatusLine {
    /// Says what there is to see.
    pub(super) fn show(&mut self, published: &Published) {
        let line = line_of(published);
        if line != self.0 {
            tell(&[NotifyState::Status(&line)]);
            self.0 = line;
        }
    }
}

fn line_of(published: &Published) -> String {
    let status = &published.status;
    let name = status.network.as_ref().map_or("", |network| &network.name);
    match status.state {
        State::Up => match status.peers.len() {
            1 => format!("{name} · 1 peer"),
            peers => format!("{name} · {peers} peers"),
        },
        State::Down => format!("{name} is down"),
        State::None => {
            let mut errors = status.health.iter();
            let error = errors.find(|line| line.level == Level::Error);
            error.map_or("in no network".to_owned(), |line| line.message.clone())
        }
    }
}

/// Feeds the service manager's watchdog, as long as both threads turn: this one by asking, the data thread by having
/// made a turn since it was asked last.
#[derive(Debug)]
pub(super) struct Watchdog {
    every: Option<Duration>,
    asked: Moment,
    is_silent: bool,
}

impl Watchdog {
    /// The one of this process, which bites after as long as the service manager said; a quarter of that is left
    /// between meals, so that one missed is no bite.
    pub(super) fn of_this_process() -> Self {
        Self::biting_after(sd_notify::watchdog_enabled())
    }

    fn biting_after(limit: Option<Duration>) -> Self {
        Self {
            every: limit.map(|limit| limit / 4),
            asked: Moment(0),
            is_silent: false,
        }
    }

    /// Feeds it if it is time. `turned` asks the data thread, if there is one, for its last turn.
    pub(super) fn tend(&mut self, now: Moment, turned: impl FnOnce() -> Option<Moment>) {
        if self.is_fed(now, turned) {
            tell(&[NotifyState::Watchdog]);
        }
    }

    fn is_fed(&mut self, now: Moment, turned: impl FnOnce() -> Option<Moment>) -> bool {
        let is_due = |every: Duration| now >= self.asked.after(every);
        if !self.every.is_some_and(is_due) {
            return false;
        }
        let is_stuck = turned().is_some_and(|turned| turned < self.asked);
        if is_stuck && !self.is_silent {
            tracing::error!("The data thread does not turn; the watchdog is not fed");
        }
        self.asked = now;
        self.is_silent = is_stuck;
        !is_stuck
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "The service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_thread_that_stands_still_is_not_covered_for() {
        let mut watchdog = Watchdog::biting_after(Some(Duration::from_secs(20)));
        let at = |seconds| Moment(0).after(Duration::from_secs(seconds));
        assert!(watchdog.is_fed(at(10), || Some(at(7))));
        assert!(
            !watchdog.is_fed(at(12), || unreachable!()),
            "a quarter of the time lies between"
        );
        assert!(watchdog.is_fed(at(15), || Some(at(10))));
        assert!(!watchdog.is_fed(at(20), || Some(at(10))));
        assert!(!watchdog.is_fed(at(25), || Some(at(10))));
        assert!(watchdog.is_fed(at(30), || Some(at(26))), "it was only slow");
        assert!(
            watchdog.is_fed(at(35), || None),
            "in no network there is none"
        );
        assert!(watchdog.is_fed(at(40), || Some(at(38))), "a new one");
    }

    #[test]
    fn without_a_watchdog_nobody_is_asked() {
        let mut watchdog = Watchdog::biting_after(None);
        assert!(!watchdog.is_fed(Moment(1), || unreachable!()));
    }

    #[test]
    fn the_line_says_where_the_agent_is() {
        let nothing = Published::nothing(Vec::new());
        assert_eq!(line_of(&nothing), "in no network");
        let broken = Published::nothing(vec![crate::api::Health {
            level: Level::Error,
            code: "state_unusable".to_owned(),
            message: "the network on this disk cannot be used".to_owned(),
            remedy: None,
        }]);
        assert_eq!(line_of(&broken), "the network on this disk cannot be used");
    }
}
