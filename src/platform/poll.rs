//! Waiting for several descriptors at once, and waking a thread that waits: epoll and eventfd.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::{EfdFlags, EventFd},
};

/// Waits for descriptors to become readable, and those that are full to become writable.
#[derive(Debug)]
pub struct Poll(Epoll);

/// One descriptor that has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The number it was added under.
    pub token: u64,
    /// Whether it has something to read, or an error.
    pub is_readable: bool,
    /// Whether it can be written again, where that was asked for.
    pub is_writable: bool,
    /// Whether it reported an error or a hang-up.
    pub health: Health,
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// In nothing but that it is broken.
    Nothing,
    /// Having something to read.
    Reading,
    /// That, and taking something.
    ReadingAndWriting,
}

/// Whether a descriptor is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can be read.
    Fine,
    /// It reported an error or a hang-up; reading tells which.
    Broken,
}

/// How many descriptors one wait reports. A data thread has five.
const READY_MAX: usize = 8;

impl Poll {
    /// Makes one that watches nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches a descriptor for reading. It is forgotten when it is closed.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self
            .0
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Watches a descriptor that is watched already for something else.
    pub fn watch(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Nothing => EpollFlags::empty(),
            Interest::Reading => EpollFlags::EPOLLIN,
            Interest::ReadingAndWriting => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        };
        Ok(self.0.modify(fd, &mut EpollEvent::new(flags, token))?)
    }

    /// Waits until a descriptor is ready or `timeout` is over (none: for ever), and tells each. A signal ends the wait.
    pub fn wait(
        &self,
        timeout: Option<Duration>,
        mut tell: impl FnMut(Readiness),
    ) -> io::Result<()> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(timeout) => EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX),
        };
        let mut events = [EpollEvent::empty(); READY_MAX];
        let ready = match self.0.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(ready) {
            let flags = event.events();
            let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
            let health = if flags.intersects(broken) {
                Health::Broken
            } else {
                Health::Fine
            };
            tell(Readiness {
                token: event.data(),
                is_readable: flags.intersects(broken | EpollFlags::EPOLLIN),
                is_writable: flags.contains(EpollFlags::EPOLLOUT),
                health,
            });
        }
        Ok(())
    }
}

/// It is readable itself while one of its descriptors is.
impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// Wakes a thread that waits in [`Poll::wait`]. Clones wake the same one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_flags(flags)?)))
    }

    /// Wakes. A counter that is full wakes as well, so there is nothing to report.
    pub fn wake(&self) {
        let _ = self.0.write(1);
    }

    /// Takes back all wakes so far.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_seen_once() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new().unwrap();
        poll.add(&waker, 7).unwrap();
        waker.wake();
        waker.wake();
        let mut seen = Vec::new();
        poll.wait(None, |ready| seen.push(ready.token)).unwrap();
        waker.clear();
        poll.wait(Some(Duration::ZERO), |ready| seen.push(ready.token))
            .unwrap();
        assert_eq!(seen, [7]);
    }

    #[test]
    fn writing_is_watched_while_it_is_asked_for() {
        let poll = Poll::new().unwrap();
        let (_other, full) = std::os::unix::net::UnixDatagram::pair().unwrap();
        poll.add(&full, 3).unwrap();
        for (interest, is_told) in [
            (Interest::Reading, false),
            (Interest::ReadingAndWriting, true),
            (Interest::Reading, false),
        ] {
            poll.watch(&full, 3, interest).unwrap();
            let mut seen = Vec::new();
            poll.wait(Some(Duration::ZERO), |ready| {
                seen.push((ready.token, ready.is_writable, ready.is_readable));
            })
            .unwrap();
            assert_eq!(seen, [(3, true, false)][..usize::from(is_told)]);
        }
    }
}
