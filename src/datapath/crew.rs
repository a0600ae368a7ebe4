//! How the data threads talk: what the first says to each lane and each to the first, in order, by channels that wake who is
//! to hear. None of it is on the way of a packet that a lane seals or opens by itself.

use std::{
    io,
    sync::{Arc, mpsc},
    time::Duration,
};

use super::{
    command::Command,
    lane::{Backlog, News, Order, Word},
    outbound::PADDING,
    shard::Shard,
    thread::{TUN, Turn, Turnstile, take_packet},
};
use crate::{
    platform::{
        clock,
        poll::{Interest, Waker},
        tun::Tun,
    },
    time::Moment,
};

/// How long a lane waits at most until what the first thread has is delivered.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long lanes wait at most until everything that the first thread has sealed or keeps for its uplink has left. An uplink
/// that stays full is full for what lanes send too.
const FULL: Duration = Duration::from_millis(50);

/// Words of lanes taken before packets get their turn.
const WORDS: usize = 256;

/// What a thread is to the others.
pub(super) enum Role {
    /// It has the sessions.
    First {
        commands: mpsc::Receiver<Command>,
        crew: Crew,
    },
    Lane(Post),
}

/// The first thread's end.
#[derive(Debug)]
pub(super) struct Crew {
    ends: Vec<End>,
    words: mpsc::Receiver<(usize, Word)>,
    /// Ways that lanes may go once everything that this thread has sealed has left.
    ways: Vec<(usize, Order)>,
    /// Since when it has not.
    stuck: Option<Moment>,
}

/// What leads to one lane.
#[derive(Debug)]
struct End {
    orders: mpsc::Sender<Order>,
    /// Whether it is to be woken.
    is_told: bool,
    waker: Waker,
    /// What was told and not dealt with, and what it has handed over.
    told: Arc<Backlog>,
    handed: Arc<Backlog>,
    /// Whether less of that waits than it knows.
    has_less: bool,
    /// Packets of what it handed over that are under way.
    left: u64,
    /// How often it asked that everything be delivered, and when it did last.
    asked: u64,
    since: Moment,
}

/// A lane's end.
#[derive(Debug)]
pub(super) struct Post {
    number: usize,
    orders: mpsc::Receiver<Order>,
    words: mpsc::Sender<(usize, Word)>,
    first: Waker,
    waker: Waker,
    told: Arc<Backlog>,
    handed: Arc<Backlog>,
    /// An order for the thread itself that came in the middle of something.
    kept: Option<Order>,
}

/// What comes out of a lane's post.
#[derive(Debug)]
pub(super) enum Mail {
    /// Nothing more.
    Nothing,
    /// The shard has dealt with it.
    Done,
    /// The lane's device from now on.
    Device(Option<Tun>),
    /// The lane ends.
    Over,
}

/// Makes the ends of so many lanes; `first` wakes the first thread.
///
/// # Errors
/// The kernel gives no eventfd.
pub(super) fn muster(lanes: usize, first: &Waker) -> io::Result<(Crew, Vec<Post>)> {
    let (words, heard) = mpsc::channel();
    let mut crew = Crew {
        ends: Vec::new(),
        words: heard,
        ways: Vec::new(),
        stuck: None,
    };
    let mut posts = Vec::new();
    for number in 1..=lanes {
        let (sender, orders) = mpsc::channel();
        let waker = Waker::new()?;
        let (told, handed) = (Arc::default(), Arc::default());
        posts.push(Post {
            number,
            orders,
            words: words.clone(),
            first: first.clone(),
            waker: waker.clone(),
            told: Arc::clone(&told),
            handed: Arc::clone(&handed),
            kept: None,
        });
        crew.ends.push(End {
            orders: sender,
            is_told: false,
            waker,
            told,
            handed,
            has_less: false,
            left: 0,
            asked: 0,
            since: Moment(0),
        });
    }
    Ok((crew, posts))
}

impl Crew {
    /// What lanes have been told and have not dealt with.
    pub(super) fn backlogs(&self) -> Vec<Arc<Backlog>> {
        self.ends.iter().map(|end| Arc::clone(&end.told)).collect()
    }

    /// The numbers of the lanes.
    pub(super) fn lanes(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.ends.len()
    }

    /// Tells lanes, and wakes each that was told something. A way waits for [`Crew::note_left`], so that nothing overtakes
    /// what this thread has for its peer.
    pub(super) fn deliver(&mut self, orders: &mut Vec<(usize, Order)>) {
        for (thread, order) in orders.drain(..) {
            if let Order::Way { peer, way } = &order {
                let is_other = |(at, waits): &(usize, Order)| {
                    *at != thread || !matches!(waits, Order::Way { peer: of, .. } if of == peer)
                };
                self.ways.retain(is_other);
                if way.is_some() {
                    self.ways.push((thread, order));
                    continue;
                }
            }
            self.tell(thread, order);
        }
        self.wake();
    }

    fn tell(&mut self, thread: usize, order: Order) {
        if let Some(end) = thread.checked_sub(1).and_then(|at| self.ends.get_mut(at)) {
            // One that has ended has said so, and this thread ends soon.
            let _ended = end.orders.send(order);
            end.is_told = true;
        }
    }

    fn wake(&mut self) {
        for end in &mut self.ends {
            if std::mem::take(&mut end.is_told) {
                end.waker.wake();
            }
        }
    }

    /// The next word of a lane.
    pub(super) fn next(&mut self) -> Option<(usize, Word)> {
        let (thread, word) = self.words.try_recv().ok()?;
        if let Some(end) = self.ends.get_mut(thread - 1) {
            end.has_less |= end.handed.remove_word(&word);
        }
        Some((thread, word))
    }

    /// A word of a lane is dealt with.
    pub(super) fn note_word(&mut self, now: Moment, thread: usize, word: &Word) {
        if let Some(end) = self.ends.get_mut(thread - 1) {
            end.left += u64::from(matches!(word, Word::Packet { .. }));
            if matches!(word, Word::News(News::Opened { waits: true, .. })) {
                end.asked += 1;
                end.since = now;
            }
        }
    }

    /// Whether there is no lane.
    pub(super) fn is_alone(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether a lane waits until everything is delivered.
    pub(super) fn is_awaited(&self) -> bool {
        self.ends.iter().any(End::is_waiting)
    }

    /// What there was is delivered, if the sockets were empty. Otherwise a lane waits no longer than [`PATIENCE`]: somebody
    /// may send faster than this thread takes it in.
    pub(super) fn note_delivered(&self, now: Moment, is_empty: bool) {
        let is_over = |end: &&End| is_empty || now.since(end.since) >= PATIENCE;
        for end in self
            .ends
            .iter()
            .filter(|end| end.is_waiting())
            .filter(is_over)
        {
            end.handed.set_delivered(end.asked);
            end.waker.wake();
        }
    }

    /// What lanes handed over is dealt with; whether everything that this thread has sealed has left, and nothing waits.
    pub(super) fn note_left(&mut self, now: Moment, has_left: bool) {
        let since = self.stuck.unwrap_or(now);
        self.stuck = (!has_left).then_some(since);
        let has_left = has_left || now.since(since) >= FULL;
        for end in &mut self.ends {
            let is_news = has_left && end.handed.left() < end.left;
            if is_news {
                end.handed.set_left(end.left);
            }
            if std::mem::take(&mut end.has_less) || is_news {
                end.waker.wake();
            }
        }
        if has_left && !self.ways.is_empty() {
            for (thread, order) in std::mem::take(&mut self.ways) {
                self.tell(thread, order);
            }
            self.wake();
        }
    }
}

impl End {
    fn is_waiting(&self) -> bool {
        self.handed.delivered() < self.asked
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ended = end.orders.send(Order::Stop);
            end.waker.wake();
        }
    }
}

impl Post {
    /// The lane's number.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// What wakes the lane.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// What the lane has handed over.
    pub(super) fn handed(&self) -> Arc<Backlog> {
        Arc::clone(&self.handed)
    }

    /// Does the next thing that was ordered.
    pub(super) fn take(&mut self, now: Moment, shard: &mut Shard) -> Mail {
        let next = self.kept.take();
        match next.map_or_else(|| self.orders.try_recv(), Ok) {
            Ok(Order::Attach { tun }) => Mail::Device(tun),
            Ok(Order::Stop) | Err(mpsc::TryRecvError::Disconnected) => Mail::Over,
            Ok(order) => {
                if let Order::Datagram { bytes, .. } = &order {
                    self.told.remove_came(bytes.len());
                }
                shard.handle_order(now, order);
                Mail::Done
            }
            Err(mpsc::TryRecvError::Empty) => Mail::Nothing,
        }
    }

    /// Does what was ordered before a datagram that is there now can have been sent: its key may be among it. What is for
    /// the thread itself waits for its turn.
    pub(super) fn catch_up(&mut self, now: Moment, shard: &mut Shard) {
        if self.kept.is_some() {
            return;
        }
        loop {
            match self.take(now, shard) {
                Mail::Done => {}
                Mail::Nothing => return,
                Mail::Device(tun) => return self.kept = Some(Order::Attach { tun }),
                Mail::Over => return self.kept = Some(Order::Stop),
            }
        }
    }

    /// Tells the first thread.
    pub(super) fn deliver(&self, words: &mut Vec<Word>) {
        if words.is_empty() {
            return;
        }
        for word in words.drain(..) {
            // Where the first has ended there is an order to end too.
            let _ended = self.words.send((self.number, word));
        }
        self.first.wake();
    }
}

impl Drop for Post {
    /// A lane that ends before it was told to takes the first thread with it.
    fn drop(&mut self) {
        let _ended = self.words.send((self.number, Word::Ended));
        self.first.wake();
    }
}

impl Turnstile {
    /// What lanes say.
    pub(super) fn take_words(&mut self) -> io::Result<Turn> {
        let now = clock::moment();
        let mut taken = 0;
        while let Role::First { crew, .. } = &mut self.role
            && let Some((thread, word)) = crew.next()
        {
            crew.note_word(now, thread, &word);
            match word {
                Word::Packet { mut bytes, undone } => {
                    let what = (bytes.len() - PADDING, undone);
                    take_packet(&mut self.shard, &mut self.uplink, now, &mut bytes, what);
                }
                Word::Ended => return Err(io::Error::other("another data thread has ended")),
                Word::News(news) => self.take_news(now, news),
            }
            self.flush_if_many();
            taken += 1;
            if taken == WORDS {
                self.waker.wake();
                break;
            }
        }
        Ok(Turn::Next)
    }

    fn take_news(&mut self, now: Moment, news: News) {
        // As where a packet comes to this thread's own sockets.
        if let News::Heard { source, .. } = &news
            && let Some(at) = source.direct()
        {
            self.openings.note_opened(now, at);
        }
        self.shard.handle_news(now, news);
    }

    /// Everything that this thread has sealed has left, and nothing waits for the uplink.
    pub(super) fn has_left(&self) -> bool {
        self.uplink.is_open() && self.shard.out.datagrams.is_empty()
    }

    pub(super) fn take_orders(&mut self) -> io::Result<Turn> {
        let now = clock::moment();
        while let Role::Lane(post) = &mut self.role {
            match post.take(now, &mut self.shard) {
                Mail::Done => self.flush_if_many(),
                Mail::Device(tun) => self.attach(tun)?,
                Mail::Nothing => return Ok(Turn::Next),
                Mail::Over => return Ok(Turn::Last),
            }
        }
        Ok(Turn::Next)
    }

    /// While what a lane has handed over leaves, it does not hear that programs write more. The first thread wakes it.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let waits = self.shard.waits_to_send();
        let Some(tun) = self.parts.tun.as_ref().filter(|_| waits != self.is_deaf) else {
            return Ok(());
        };
        let interest = match waits {
            true => Interest::Nothing,
            false => Interest::Reading,
        };
        self.poll.watch(tun, TUN, interest)?;
        self.is_deaf = waits;
        Ok(())
    }
}
