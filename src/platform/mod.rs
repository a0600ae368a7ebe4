//! The operating system: TUN, UDP batches, netlink, namespaces, sock_diag, clocks. The only room with `unsafe`.
