//! The agent: one loop that owns the node, carries out its outputs, and answers the API.
