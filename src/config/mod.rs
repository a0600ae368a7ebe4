//! The file a person writes, and the checked values it becomes.
