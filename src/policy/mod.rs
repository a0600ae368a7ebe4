//! Who may reach what. Until policies are built: one constant, `members → members: everything` (design §10).
//!
//! Knows the rule and its words. Enforces nothing, because there is nothing to refuse yet.

/// The only rule there is, as `policy show` prints it.
pub const DEFAULT_RULE: &str = "members → members: everything";

/// Where the rule comes from, as `policy show` prints it.
pub const DEFAULT_SOURCE: &str = "the default; no policy is set";

/// The rule in a sentence, as `init` prints it.
pub const DEFAULT_SENTENCE: &str = "members may reach every port of each other";
