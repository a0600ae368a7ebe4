//! The contract of the agent's socket: requests, replies, errors (design §4).
