//! Who claims a thing that only one may have: a name, an IPv4 offset, a tunnel key. The senior claim holds it.

use std::collections::{BTreeMap, BTreeSet};

use super::certificate::Seniority;
use crate::ids::NodeId;

/// Claims by key. The order in which they came does not matter.
#[derive(Clone, Debug)]
pub(super) struct Claims<K> {
    by_key: BTreeMap<K, BTreeSet<Seniority>>,
}

impl<K: Ord> Default for Claims<K> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Claims<K> {
    pub(super) fn add(&mut self, key: K, claim: Seniority) {
        self.by_key.entry(key).or_default().insert(claim);
    }

    pub(super) fn remove(&mut self, key: &K, claim: &Seniority) {
        if let Some(claims) = self.by_key.get_mut(key) {
            claims.remove(claim);
            if claims.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// Who holds `key`.
    pub(super) fn holder(&self, key: &K) -> Option<&Seniority> {
        self.by_key.get(key).and_then(BTreeSet::first)
    }

    pub(super) fn is_holder(&self, key: &K, node: NodeId) -> bool {
        self.holder(key).is_some_and(|first| first.node == node)
    }

    /// Who claims `key` in vain, senior first.
    pub(super) fn losers(&self, key: &K) -> impl Iterator<Item = &Seniority> {
        self.by_key.get(key).into_iter().flatten().skip(1)
    }

    /// All keys from `start` on that satisfy `while_`, in order.
    pub(super) fn keys_from(&self, start: K) -> impl Iterator<Item = &K> {
        self.by_key.range(start..).map(|(key, _)| key)
    }
}
