//! What is answered in sessions that are no gossip links: each has a budget of its own.

use std::collections::BTreeMap;

use super::{
    Shelf,
    budget::{Budget, Class},
    pack,
};
use crate::{
    ids::SessionId,
    time::Moment,
    wire::message::{Message, Want},
};

/// The budgets of sessions that are no gossip links.
#[derive(Clone, Debug, Default)]
pub struct Unlinked {
    budgets: BTreeMap<SessionId, Budget>,
}

/// What is said to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The records, in as few messages as their order allows.
    pub messages: Vec<Message>,
    /// How many messages at least the budget did not carry: whoever misses what was in them asks again.
    pub withheld: usize,
}

impl Unlinked {
    /// Answers a Want: the records asked for that are held and offered, in Records messages with bodies of at most
    /// `body_max` bytes (1,100; 960 in a join session). A record that does not fit alone is left out.
    pub fn answer(
        &mut self,
        now: Moment,
        session: SessionId,
        (want, body_max): (&Want, usize),
        shelf: &dyn Shelf,
    ) -> Answer {
        let budget = self.budgets.entry(session).or_default();
        if !budget.has_room(now, body_max, Class::Unlinked) {
            // A flood of questions must not cost the making of answers.
            return Answer {
                messages: Vec::new(),
                withheld: 1,
            };
        }
        let mut messages = pack::answer(want, body_max, shelf);
        let mut fits = |message: &&Message| {
            let bytes = pack::weight(message);
            budget.try_take(now, bytes, Class::Unlinked).is_ok()
        };
        let carried = messages.iter().take_while(|message| fits(message)).count();
        let withheld = messages.split_off(carried).len();
        Answer { messages, withheld }
    }

    /// A session ended.
    pub fn handle_down(&mut self, session: SessionId) {
        self.budgets.remove(&session);
    }
}
