//! Why packets went nowhere: every reason is a counter in `status --json`.
