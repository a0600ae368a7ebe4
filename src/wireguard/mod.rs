//! WireGuard sessions by boringtun; one file names it. The simulator has a double.
